//! Python literals (`ast.literal_eval` for the shapes configuration takes) and JSON as Python's `json` writes it.
//!
//! One recursive-descent parser serves both: they differ only in the names of the constants and in which brackets exist.

use super::tree::{MAX_DEPTH, Tree};
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq)]
enum Dialect {
    Python,
    Json,
}

/// The value of a Python literal: `None`, booleans, numbers, strings, bytes without escapes beyond ASCII, tuples, lists,
/// sets and dicts of them. `None` (the option) when the text is no such literal.
#[must_use]
pub fn parse_python(text: &str) -> Option<Tree> {
    parse(text.trim_start_matches([' ', '\t']), Dialect::Python)
}

/// JSON including `Infinity`, `-Infinity` and `NaN`, which Python's `json.dumps` writes.
#[must_use]
pub fn parse_json(text: &str) -> Option<Tree> {
    parse(text, Dialect::Json)
}

fn parse(text: &str, dialect: Dialect) -> Option<Tree> {
    let mut parser = Parser {
        text,
        pos: 0,
        dialect,
    };
    let first = parser.value(0)?;
    parser.space();
    if parser.rest().is_empty() {
        return Some(first);
    }
    // A tuple without parentheses: `1, 2`.
    if dialect == Dialect::Python && parser.rest().starts_with(',') {
        let mut items = vec![first];
        while parser.eat(",") {
            parser.space();
            if parser.rest().is_empty() {
                break;
            }
            items.push(parser.value(0)?);
            parser.space();
        }
        return parser.rest().is_empty().then_some(Tree::List(items));
    }
    None
}

struct Parser<'a> {
    text: &'a str,
    pos: usize,
    dialect: Dialect,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.pos += rest.len()
            - rest
                .trim_start_matches([' ', '\t', '\n', '\r', '\u{c}'])
                .len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.pos += token.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Option<Tree> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        match self.rest().chars().next()? {
            '[' => self.list("[", "]", depth),
            '{' => self.braces(depth),
            '(' if self.dialect == Dialect::Python => self.parenthesised(depth),
            '"' => self.string(),
            '\'' if self.dialect == Dialect::Python => self.string(),
            c if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number(),
            c if c.is_ascii_alphabetic() || c == '_' => self.name(),
            _ => None,
        }
    }

    fn items(&mut self, close: &str, depth: usize) -> Option<(Vec<Tree>, bool)> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            self.space();
            if self.eat(close) {
                return (self.dialect == Dialect::Python || !comma).then_some((items, comma));
            }
            if !items.is_empty() && !comma {
                return None;
            }
            items.push(self.value(depth + 1)?);
            self.space();
            comma = self.eat(",");
        }
    }

    fn list(&mut self, open: &str, close: &str, depth: usize) -> Option<Tree> {
        self.eat(open);
        self.items(close, depth).map(|(items, _)| Tree::List(items))
    }

    fn parenthesised(&mut self, depth: usize) -> Option<Tree> {
        self.eat("(");
        let (mut items, trailing_comma) = self.items(")", depth)?;
        if items.len() == 1 && !trailing_comma {
            items.pop()
        } else {
            Some(Tree::List(items))
        }
    }

    fn braces(&mut self, depth: usize) -> Option<Tree> {
        self.eat("{");
        let mut map = BTreeMap::new();
        let mut set = Vec::new();
        let mut comma = false;
        loop {
            self.space();
            if self.eat("}") {
                let allowed = self.dialect == Dialect::Python || !comma;
                return allowed.then_some(if set.is_empty() {
                    Tree::Map(map)
                } else {
                    Tree::List(set)
                });
            }
            if !(comma || map.is_empty() && set.is_empty()) {
                return None;
            }
            let key = self.value(depth + 1)?;
            self.space();
            if self.eat(":") {
                if !set.is_empty() {
                    return None;
                }
                let value = self.value(depth + 1)?;
                map.insert(key_text(&key)?, value);
            } else if self.dialect == Dialect::Python && map.is_empty() {
                set.push(key);
            } else {
                return None;
            }
            self.space();
            comma = self.eat(",");
        }
    }

    fn name(&mut self) -> Option<Tree> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let word = &rest[..end];
        let quoted = rest[end..].starts_with(['"', '\'']);
        if self.dialect == Dialect::Python
            && quoted
            && matches!(
                word.to_ascii_lowercase().as_str(),
                "b" | "u" | "r" | "br" | "rb"
            )
        {
            let raw = word.to_ascii_lowercase().contains('r');
            self.pos += end;
            return if raw {
                self.raw_string()
            } else {
                self.string()
            };
        }
        let value = match (self.dialect, word) {
            (Dialect::Python, "None") | (Dialect::Json, "null") => Tree::Null,
            (Dialect::Python, "True") | (Dialect::Json, "true") => Tree::Bool(true),
            (Dialect::Python, "False") | (Dialect::Json, "false") => Tree::Bool(false),
            (Dialect::Json, "Infinity") => Tree::Float(f64::INFINITY),
            (Dialect::Json, "NaN") => Tree::Float(f64::NAN),
            _ => return None,
        };
        self.pos += end;
        Some(value)
    }

    fn number(&mut self) -> Option<Tree> {
        // `literal_eval` takes one sign.
        let negative = self.eat("-");
        if !negative && self.dialect == Dialect::Python {
            self.eat("+");
        }
        self.space();
        if self.dialect == Dialect::Json && self.eat("Infinity") {
            return Some(Tree::Float(if negative {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            }));
        }
        let rest = self.rest();
        let end = number_end(rest);
        let text = &rest[..end];
        // Underscores only between digits.
        if text.is_empty() || text.ends_with('_') || text.contains("__") || text.starts_with('_') {
            return None;
        }
        // `1j`, `5s`, `0x` and the like: what follows must not continue the word.
        if rest[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.') {
            return None;
        }
        self.pos += end;
        let digits = text.replace('_', "");
        let lower = digits.to_ascii_lowercase();
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
            if let Some(body) = lower.strip_prefix(prefix) {
                let n = i64::from_str_radix(body, radix).ok()?;
                return Some(Tree::Int(if negative { -n } else { n }));
            }
        }
        if lower.bytes().all(|b| b.is_ascii_digit()) {
            if lower.len() > 1 && lower.starts_with('0') && lower.bytes().any(|b| b != b'0') {
                return None; // Python refuses 0755
            }
            let signed = if negative { format!("-{lower}") } else { lower };
            return Some(signed.parse().map_or_else(
                |_| Tree::Float(signed.parse().unwrap_or(f64::NAN)),
                Tree::Int,
            ));
        }
        let value: f64 = lower.parse().ok()?;
        Some(Tree::Float(if negative { -value } else { value }))
    }

    fn raw_string(&mut self) -> Option<Tree> {
        let quote = self.rest().chars().next()?;
        let body = &self.rest()[1..];
        let end = body.find(quote)?;
        self.pos += end + 2;
        Some(Tree::Str(body[..end].to_owned()))
    }

    fn string(&mut self) -> Option<Tree> {
        let first = self.one_string()?;
        let mut text = first;
        // Adjacent string literals are joined.
        while self.dialect == Dialect::Python {
            let before = self.pos;
            self.space();
            if !self.rest().starts_with(['"', '\'']) {
                self.pos = before;
                break;
            }
            text.push_str(&self.one_string()?);
        }
        Some(Tree::Str(text))
    }

    fn one_string(&mut self) -> Option<String> {
        let rest = self.rest();
        let quote = ["\"\"\"", "'''"]
            .into_iter()
            .find(|q| self.dialect == Dialect::Python && rest.starts_with(q))
            .unwrap_or(&rest[..1]);
        self.eat(quote);
        let mut out = String::new();
        loop {
            if self.eat(quote) {
                return Some(out);
            }
            let c = self.rest().chars().next()?;
            self.pos += c.len_utf8();
            match c {
                '\\' => self.escape(&mut out)?,
                '\n' if quote.len() == 1 => return None,
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Option<()> {
        let c = self.rest().chars().next()?;
        self.pos += c.len_utf8();
        match c {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            '/' if self.dialect == Dialect::Json => out.push('/'),
            '"' | '\'' | '\\' => out.push(c),
            '\n' => {}
            'x' => out.push(char::from_u32(self.hex(2)?)?),
            'u' => {
                let unit = self.hex(4)?;
                // JSON spells what lies beyond 16 bits as a pair of surrogates.
                if (0xd800..0xdc00).contains(&unit) && self.eat("\\u") {
                    let low = self.hex(4)?.checked_sub(0xdc00)?;
                    out.push(char::from_u32(0x10000 + ((unit - 0xd800) << 10) + low)?);
                } else {
                    out.push(char::from_u32(unit)?);
                }
            }
            'U' => out.push(char::from_u32(self.hex(8)?)?),
            c if self.dialect == Dialect::Python => {
                out.push('\\');
                out.push(c);
            }
            _ => return None,
        }
        Some(())
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let text = self.rest().get(..digits)?;
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.pos += digits;
        u32::from_str_radix(text, 16).ok()
    }
}

/// Where the number at the start of `text` ends: digits, one point, one exponent, or a radix prefix with its digits.
fn number_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    if bytes.len() > 2
        && bytes[0] == b'0'
        && matches!(bytes[1].to_ascii_lowercase(), b'x' | b'o' | b'b')
    {
        let body = text[2..]
            .find(|c: char| !c.is_ascii_hexdigit() && c != '_')
            .unwrap_or(text.len() - 2);
        return body + 2;
    }
    let digits = |mut i: usize| {
        while i < bytes.len() && (bytes[i].is_ascii_digit() || bytes[i] == b'_') {
            i += 1;
        }
        i
    };
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    end
}

/// A mapping key as text.
pub(super) fn key_text(key: &Tree) -> Option<String> {
    Some(match key {
        Tree::Str(s) => s.clone(),
        Tree::Int(i) => i.to_string(),
        Tree::Float(f) => format!("{f:?}"),
        Tree::Bool(b) => if *b { "True" } else { "False" }.to_owned(),
        Tree::Null => "None".to_owned(),
        Tree::List(_) | Tree::Map(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn agrees_with_literal_eval() {
        // `[text, value]` per line, written by the real `dask.config.interpret_value`.
        for line in include_str!("testdata/literals.jsonl").lines() {
            let Some(Tree::List(pair)) = parse_json(line) else {
                panic!("{line}")
            };
            let [Tree::Str(text), expected] = &pair[..] else {
                panic!("{line}")
            };
            let got = super::super::sources::interpret(text);
            assert_eq!(got.to_json(), expected.to_json(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = parse_python(&text);
            let _ = parse_json(&text);
        }

        #[test]
        fn never_panics_on_near_literals(text in "[\\[\\](){}'\"\\\\,:0-9eExXob._+\\- nuUNaTrl\\n]{0,40}") {
            let _ = parse_python(&text);
            let _ = parse_json(&text);
        }
    }
}
