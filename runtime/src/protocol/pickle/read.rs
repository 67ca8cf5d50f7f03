//! Reads pickles of plain values: annotations, span metadata and the like.

use crate::protocol::Value;
use crate::protocol::msgpack::MAX_DEPTH;
use bytes::Bytes;
use rustc_hash::FxHashMap;
use thiserror::Error;

/// Why a pickle was not read here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// It holds more than plain values (or shares them beyond measure): only Python can load it.
    #[error("the pickle needs Python: {reason} at byte {at}")]
    NeedsPython {
        /// What it needs.
        reason: &'static str,
        /// Offset of the opcode.
        at: usize,
    },
    /// It is no pickle.
    #[error("malformed pickle at byte {at}")]
    Malformed {
        /// Offset of the opcode.
        at: usize,
    },
}

/// Loads a pickle of `None`, `bool`, `int`, `float`, `str`, `bytes`, `tuple`, `list`, `set`, `frozenset` and `dict`.
///
/// Tuples and lists both become arrays. Never runs code; anything else is an error.
pub fn read(pickle: &[u8]) -> Result<Value, ReadError> {
    let mut machine = Machine {
        input: pickle,
        pos: 0,
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        memo: FxHashMap::default(),
    };
    let root = machine.run()?;
    // Values that are shared in the pickle are copied here; a small pickle could otherwise describe a huge tree.
    let mut budget = pickle.len().saturating_mul(8).max(1 << 16);
    machine.build(root, MAX_DEPTH, &mut budget)
}

#[derive(Clone, Copy)]
enum Slot {
    Mark,
    Node(usize),
}

/// An object under construction. Containers hold indices, because a pickle may fill a container after it was put
/// somewhere else.
enum Node {
    Leaf(Value),
    Seq(Vec<usize>),
    Set(Vec<usize>),
    Map(Vec<(usize, usize)>),
}

struct Machine<'a> {
    input: &'a [u8],
    pos: usize,
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Slot>,
    memo: FxHashMap<u32, usize>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<usize, ReadError> {
        loop {
            self.at = self.pos;
            let [opcode] = self.array()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => drop(self.array::<1>()?),
                0x95 => drop(self.array::<8>()?),
                b'(' => self.stack.push(Slot::Mark),
                b'0' => drop(self.stack.pop().ok_or(self.malformed())?),
                b'1' => drop(self.pop_mark()?),
                _ => self.scalar(opcode)?,
            }
        }
    }

    fn scalar(&mut self, opcode: u8) -> Result<(), ReadError> {
        let value = match opcode {
            b'N' => Value::Nil,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::from(u32::from(self.array::<1>()?[0])),
            b'M' => Value::from(u16::from_le_bytes(self.array()?)),
            b'J' => Value::from(i32::from_le_bytes(self.array()?)),
            b'G' => Value::F64(f64::from_be_bytes(self.array()?)),
            0x8a => self.long()?,
            0x8c | b'X' | 0x8d => {
                let len = self.length(opcode)?;
                // Lone surrogates are legal in a Python text and have no place in UTF-8.
                let foreign = self.python("a text that is not UTF-8");
                let text = std::str::from_utf8(self.bytes(len)?).map_err(|_| foreign)?;
                Value::from(text)
            }
            b'C' | b'B' | 0x8e => {
                let len = self.length(opcode)?;
                Value::Bin(Bytes::copy_from_slice(self.bytes(len)?))
            }
            _ => return self.container(opcode),
        };
        self.push(Node::Leaf(value));
        Ok(())
    }

    fn container(&mut self, opcode: u8) -> Result<(), ReadError> {
        match opcode {
            b')' | b']' => self.push(Node::Seq(Vec::new())),
            b'}' => self.push(Node::Map(Vec::new())),
            0x8f => self.push(Node::Set(Vec::new())),
            0x85..=0x87 => {
                let first = self
                    .stack
                    .len()
                    .checked_sub(usize::from(opcode - 0x84))
                    .ok_or(self.malformed())?;
                let items = self.stack.split_off(first);
                let items = self.indices(items)?;
                self.push(Node::Seq(items));
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Seq(items));
            }
            0x91 => {
                let items = self.pop_mark()?;
                self.push(Node::Set(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item], false)?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(items, opcode == 0x90)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            _ => return self.memory(opcode),
        }
        Ok(())
    }

    fn memory(&mut self, opcode: u8) -> Result<(), ReadError> {
        match opcode {
            0x94 => self.put(self.memo.len() as u32),
            b'q' => {
                let [slot] = self.array()?;
                self.put(slot.into())
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.put(slot)
            }
            b'h' => {
                let [slot] = self.array()?;
                self.get(slot.into())
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.get(slot)
            }
            b'c' | 0x93 => Err(self.python("a class or function")),
            b'R' | 0x81 | 0x92 | b'b' => Err(self.python("an object of a class")),
            0x97 | 0x98 => Err(self.python("an out-of-band buffer")),
            _ => Err(self.python("an opcode of no plain value")),
        }
    }

    fn put(&mut self, slot: u32) -> Result<(), ReadError> {
        match self.stack.last() {
            Some(Slot::Node(node)) => drop(self.memo.insert(slot, *node)),
            _ => return Err(self.malformed()),
        }
        Ok(())
    }

    fn get(&mut self, slot: u32) -> Result<(), ReadError> {
        let node = *self.memo.get(&slot).ok_or(self.malformed())?;
        self.stack.push(Slot::Node(node));
        Ok(())
    }

    fn extend(&mut self, items: Vec<usize>, set: bool) -> Result<(), ReadError> {
        let at = self.malformed();
        match (self.top()?, set) {
            (Node::Seq(list), false) | (Node::Set(list), true) => list.extend(items),
            _ => return Err(at),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[usize]) -> Result<(), ReadError> {
        let at = self.malformed();
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            Node::Map(entries) if rest.is_empty() => {
                entries.extend(pairs.iter().map(|[k, v]| (*k, *v)))
            }
            _ => return Err(at),
        }
        Ok(())
    }

    fn top(&mut self) -> Result<&mut Node, ReadError> {
        let malformed = self.malformed();
        match self.stack.last() {
            Some(Slot::Node(node)) => self.nodes.get_mut(*node).ok_or(malformed),
            _ => Err(malformed),
        }
    }

    fn push(&mut self, node: Node) {
        self.stack.push(Slot::Node(self.nodes.len()));
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<usize, ReadError> {
        match self.stack.pop() {
            Some(Slot::Node(node)) => Ok(node),
            _ => Err(self.malformed()),
        }
    }

    /// Everything above the last mark, which goes as well.
    fn pop_mark(&mut self) -> Result<Vec<usize>, ReadError> {
        let mark = self
            .stack
            .iter()
            .rposition(|slot| matches!(slot, Slot::Mark))
            .ok_or(self.malformed())?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        self.indices(items)
    }

    fn indices(&self, slots: Vec<Slot>) -> Result<Vec<usize>, ReadError> {
        let index = |slot| match slot {
            Slot::Node(node) => Ok(node),
            Slot::Mark => Err(self.malformed()),
        };
        slots.into_iter().map(index).collect()
    }

    fn long(&mut self) -> Result<Value, ReadError> {
        let [len] = self.array()?;
        let bytes = self.bytes(len.into())?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let fill = if negative { 0xff } else { 0 };
        let (low, high) = bytes.split_at(bytes.len().min(8));
        let mut wide = [fill; 8];
        wide[..low.len()].copy_from_slice(low);
        let value = u64::from_le_bytes(wide);
        if high.iter().any(|&b| b != fill) || (negative && (value as i64) >= 0) {
            return Err(self.python("an integer above 64 bits"));
        }
        Ok(if negative {
            Value::Int(value as i64)
        } else {
            Value::from(value)
        })
    }

    fn length(&mut self, opcode: u8) -> Result<usize, ReadError> {
        Ok(match opcode {
            0x8c | b'C' => self.array::<1>()?[0].into(),
            b'X' | b'B' => u32::from_le_bytes(self.array()?) as usize,
            _ => {
                usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| self.malformed())?
            }
        })
    }

    fn bytes(&mut self, len: usize) -> Result<&[u8], ReadError> {
        let malformed = self.malformed();
        let bytes = self
            .input
            .get(self.pos..)
            .and_then(|rest| rest.get(..len))
            .ok_or(malformed)?;
        self.pos += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let bytes = self
            .input
            .get(self.pos..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(self.malformed())?;
        self.pos += N;
        Ok(*bytes)
    }

    /// The tree under a node. A cycle runs out of depth, sharing without measure out of budget.
    fn build(&self, node: usize, depth: u32, budget: &mut usize) -> Result<Value, ReadError> {
        let spent = || self.python("values that are shared or nested too much");
        let node = self.nodes.get(node).ok_or(self.malformed())?;
        if let Node::Leaf(value) = node {
            let cost = 1 + value.as_str().map_or(0, str::len);
            *budget = budget.checked_sub(cost).ok_or_else(spent)?;
            return Ok(value.clone());
        }
        *budget = budget.checked_sub(1).ok_or_else(spent)?;
        let depth = depth.checked_sub(1).ok_or_else(spent)?;
        Ok(match node {
            Node::Seq(items) => Value::Array(self.build_all(items, depth, budget)?),
            Node::Set(items) => Value::Set(self.build_all(items, depth, budget)?),
            Node::Map(entries) => {
                let mut out = Vec::with_capacity(entries.len());
                for &(key, value) in entries {
                    out.push((
                        self.build(key, depth, budget)?,
                        self.build(value, depth, budget)?,
                    ));
                }
                Value::Map(out)
            }
            Node::Leaf(value) => value.clone(),
        })
    }

    fn build_all(
        &self,
        items: &[usize],
        depth: u32,
        budget: &mut usize,
    ) -> Result<Vec<Value>, ReadError> {
        items
            .iter()
            .map(|&item| self.build(item, depth, budget))
            .collect()
    }

    fn python(&self, reason: &'static str) -> ReadError {
        ReadError::NeedsPython {
            reason,
            at: self.at,
        }
    }

    fn malformed(&self) -> ReadError {
        ReadError::Malformed { at: self.at }
    }
}
