//! The helper's Python code. It is embedded and handed over the socket: nothing needs to be installed beside dask.

use bytes::{BufMut, Bytes, BytesMut};

macro_rules! modules {
    ($($name:literal => $path:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../python/oxidask/", $path)))),+]
    };
}

/// Module names and their sources; a package's name ends with a dot.
const MODULES: &[(&str, &str)] = modules![
    "oxidask." => "__init__.py",
    "oxidask.graph." => "graph/__init__.py",
    "oxidask.graph.culling" => "graph/culling.py",
    "oxidask.graph.errors" => "graph/errors.py",
    "oxidask.graph.maps" => "graph/maps.py",
    "oxidask.graph.materialise" => "graph/materialise.py",
    "oxidask.graph.serve" => "graph/serve.py",
    "oxidask.graph.specs" => "graph/specs.py",
    "oxidask.graph.tuning" => "graph/tuning.py",
    "oxidask.graph.versions" => "graph/versions.py",
    "oxidask.graph.wire" => "graph/wire.py",
];

/// The host's modules.
const HOST_MODULES: &[(&str, &str)] = modules![
    "oxidask." => "__init__.py",
    "oxidask.host." => "host/__init__.py",
    "oxidask.host.events" => "host/events.py",
    "oxidask.host.link" => "host/link.py",
    "oxidask.host.mirror" => "host/mirror.py",
    "oxidask.host.remote" => "host/remote.py",
    "oxidask.host.serve" => "host/serve.py",
    "oxidask.host.shuffle" => "host/shuffle.py",
    "oxidask.host.views" => "host/views.py",
];

/// What `python -c` runs: it takes the socket that is its standard input, reads the sources, and installs a finder for
/// them, so that tracebacks show their lines.
pub const BOOTSTRAP: &str = r#"
import os, socket, sys
sock = socket.socket(fileno=os.dup(0))
null = os.open(os.devnull, os.O_RDONLY)
os.dup2(null, 0)
os.close(null)
def read(n):
    out = bytearray()
    while len(out) < n:
        part = sock.recv(n - len(out))
        if not part:
            sys.exit(0)
        out += part
    return bytes(out)
sources = {}
for _ in range(int.from_bytes(read(4), "little")):
    name, source = (read(int.from_bytes(read(4), "little")).decode() for _ in "ab")
    sources[name.rstrip(".")] = (name.endswith("."), source)
import importlib.abc, importlib.machinery, linecache
class Embedded(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def find_spec(self, name, path=None, target=None):
        if name in sources:
            return importlib.machinery.ModuleSpec(name, self, origin=f"<{name}>", is_package=sources[name][0])
    def get_source(self, name):
        return sources[name][1]
    def get_code(self, name):
        source = sources[name][1]
        linecache.cache[f"<{name}>"] = (len(source), None, source.splitlines(True), f"<{name}>")
        return compile(source, f"<{name}>", "exec", dont_inherit=True)
    def is_package(self, name):
        return sources[name][0]
sys.meta_path.insert(0, Embedded())
"#;

/// The bytes that the bootstrap reads.
pub fn packed(modules: &[(&str, &str)]) -> Bytes {
    let mut out = BytesMut::new();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    out.put_u32_le(count(modules.len()));
    for (name, source) in modules {
        for text in [name, source] {
            out.put_u32_le(count(text.len()));
            out.put_slice(text.as_bytes());
        }
    }
    out.freeze()
}

/// The graph helper's modules as the bootstrap reads them.
pub fn graph_helper() -> Bytes {
    packed(MODULES)
}

/// The host's modules as the bootstrap reads them.
pub fn host() -> Bytes {
    packed(HOST_MODULES)
}
