//! Building blocks of HTML pages. Everything that comes from outside goes through [`esc`] or [`url_escape`].

use std::fmt::Write as _;

/// Text made safe for HTML content and quoted attributes.
pub(super) fn esc(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Text as one segment of a URL's path; nothing but unreserved characters stays.
pub(super) fn url_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// `dask.utils.format_bytes`.
pub(super) fn format_bytes(n: u64) -> String {
    for (unit, factor) in [
        ("PiB", 50),
        ("TiB", 40),
        ("GiB", 30),
        ("MiB", 20),
        ("kiB", 10),
    ] {
        let size = (1u64 << factor) as f64;
        if n as f64 >= size * 0.9 {
            return format!("{:.2} {unit}", n as f64 / size);
        }
    }
    format!("{n} B")
}

/// `dask.utils.format_time`.
pub(super) fn format_time(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    if seconds > 24.0 * 3600.0 * 2.0 {
        format!("{}d {}hr", whole / 86_400, whole / 3600 % 24)
    } else if seconds > 3600.0 * 2.0 {
        format!("{}hr {}m", whole / 3600, whole / 60 % 60)
    } else if seconds > 60.0 * 10.0 {
        format!("{}m {}s", whole / 60, whole % 60)
    } else if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else if seconds >= 1e-3 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.2} us", seconds * 1e6)
    }
}

/// A whole page below `/info`, two levels deep; `body` is HTML.
pub(super) fn page(title: &str, body: &str) -> String {
    let title = esc(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"icon\" href=\"../../favicon.ico\"><link rel=\"stylesheet\" href=\"../../oxidask/style.css\">\
         <script src=\"../../oxidask/info.js\" defer></script></head>\n<body class=\"info\">\
         <header class=\"bar\"><a class=\"brand\" href=\"../../status\"><span class=\"mark\"></span>Oxidask</a><nav>\
         <a href=\"../../status\">Status</a><a href=\"../main/workers.html\">Workers</a>\
         <a href=\"../main/exceptions.html\">Exceptions</a><a href=\"../main/logs.html\">Logs</a></nav></header>\n\
         <main><h1>{title}</h1>\n{body}\n</main></body></html>\n"
    )
}

/// A table; the cells are HTML, the heads are text.
pub(super) fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut out = String::from("<div class=\"scroll\"><table><thead><tr>");
    for head in heads {
        let _ = write!(out, "<th>{}</th>", esc(head));
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>");
    out
}

/// A link to a task's page, from a page two levels deep.
pub(super) fn task_link(key: &str) -> String {
    format!(
        "<a href=\"../task/{}.html\"><code>{}</code></a>",
        url_escape(key),
        esc(key)
    )
}

/// A link to a worker's page, from a page two levels deep.
pub(super) fn worker_link(address: &str) -> String {
    format!(
        "<a href=\"../worker/{}.html\">{}</a>",
        url_escape(address),
        esc(address)
    )
}

/// Colours of task names, told apart on light and dark grounds.
const PALETTE: [&str; 16] = [
    "#4e79a7", "#f0a33e", "#59a14f", "#b07aa1", "#2aa5a0", "#d37295", "#9c755f", "#8cb93a",
    "#6b6ecf", "#e07b54", "#3d9ad1", "#c7a93c", "#7f63b8", "#46a873", "#bb6a3c", "#5f8fa3",
];

/// The colour of a span in the task stream: by action, and for computing by the task's name, as in stock.
pub(super) fn colour_of(action: &str, name: &str, erred: bool) -> &'static str {
    match action {
        "transfer" => "red",
        "disk-write" | "disk-read" => "orange",
        "deserialize" => "gray",
        _ if erred => "black",
        _ => {
            // FNV-1a: stable between runs.
            let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, b| {
                (hash ^ u32::from(b)).wrapping_mul(0x0100_0193)
            });
            PALETTE[hash as usize % PALETTE.len()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_the_escapes() {
        assert_eq!(
            esc("<a href='x'>&\"</a>"),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;"
        );
        assert_eq!(url_escape("('x/é', 0)"), "%28%27x%2F%C3%A9%27%2C%200%29");
        assert!(page("<b>", "").contains("<title>&lt;b&gt;</title>"));
    }

    #[test]
    fn figures_are_dask_s() {
        assert_eq!(format_bytes(1), "1 B");
        assert_eq!(format_bytes(1234), "1.21 kiB");
        assert_eq!(format_bytes(12_345_678), "11.77 MiB");
        assert_eq!(format_bytes(1_234_567_890), "1.15 GiB");
        assert_eq!(format_time(1.0), "1.00 s");
        assert_eq!(format_time(0.001_234), "1.23 ms");
        assert_eq!(format_time(0.000_123_45), "123.45 us");
        assert_eq!(format_time(1234.567), "20m 34s");
        assert_eq!(format_time(12_345.67), "3hr 25m");
        assert_eq!(format_time(1_234_567.89), "14d 6hr");
    }
}
