//! A pickle machine that knows the shape of objects, not the objects.

/// Most opcodes that are followed; a submit has some hundreds.
const MAX_NODES: usize = 1 << 16;

/// Index of a node.
pub type Id = u32;

/// What a pickle has made.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    /// `None`.
    Nil,
    /// `bool`.
    Bool(bool),
    /// `int` of 64 bits.
    Int(i64),
    /// `float`.
    Float(f64),
    /// `str`.
    Str(&'a str),
    /// `tuple`.
    Tuple(Vec<Id>),
    /// `frozenset`.
    Frozen(Vec<Id>),
    /// `dict`, and where its contents begin.
    Dict(Vec<(Id, Id)>, Place),
    /// An imported name.
    Global(&'a str, &'a str),
    /// The result of calling a name.
    Made {
        /// The name's node.
        of: Id,
        /// The state given to it last, if any.
        state: Option<Id>,
        /// The offset after the opcode that gave it.
        end: usize,
    },
    /// Anything else.
    Opaque,
}

/// A point in the pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Offset of the next opcode.
    pub at: usize,
    /// Memo entries made before it.
    pub memo: usize,
}

/// A pickle that has been followed to its end.
#[derive(Debug)]
pub struct Trace<'a> {
    /// All nodes.
    pub nodes: Vec<Node<'a>>,
    /// The pickle's value.
    pub root: Id,
    /// Names that are imported.
    pub globals: Vec<(&'a str, &'a str)>,
    /// Calls: the callee and its arguments.
    pub calls: Vec<(Id, Id)>,
    /// Memo entries that are fetched, and where.
    pub fetches: Vec<(usize, usize)>,
    /// Offsets of FRAME opcodes.
    pub frames: Vec<usize>,
    /// Out-of-band buffers taken.
    pub buffers: usize,
}

struct Machine<'a> {
    data: &'a [u8],
    pos: usize,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: Vec<Id>,
    trace: Trace<'a>,
}

/// Follows a pickle of protocol 4 or 5; `None` if there is anything unusual about it.
pub fn follow(data: &[u8]) -> Option<Trace<'_>> {
    let trace = Trace {
        nodes: Vec::with_capacity(128),
        root: 0,
        globals: Vec::new(),
        calls: Vec::new(),
        fetches: Vec::new(),
        frames: Vec::new(),
        buffers: 0,
    };
    let (stack, marks, memo) = (Vec::with_capacity(32), Vec::new(), Vec::with_capacity(96));
    let mut machine = Machine {
        data,
        pos: 0,
        stack,
        marks,
        memo,
        trace,
    };
    while machine.step()? {}
    Some(machine.trace)
}

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let bytes = self.data.get(self.pos..self.pos.checked_add(n)?)?;
        self.pos += n;
        Some(bytes)
    }

    fn uint(&mut self, n: usize) -> Option<usize> {
        let bytes = self.take(n)?;
        bytes.iter().rev().try_fold(0usize, |acc, &b| {
            Some(acc.checked_mul(256)? | usize::from(b))
        })
    }

    fn sized(&mut self, n: usize) -> Option<&'a [u8]> {
        let len = self.uint(n)?;
        self.take(len)
    }

    fn push(&mut self, node: Node<'a>) -> Option<()> {
        if self.trace.nodes.len() >= MAX_NODES {
            return None;
        }
        self.stack.push(self.trace.nodes.len() as Id);
        self.trace.nodes.push(node);
        Some(())
    }

    fn text(&mut self, n: usize) -> Option<()> {
        let text = std::str::from_utf8(self.sized(n)?).ok()?;
        self.push(Node::Str(text))
    }

    fn opaque_sized(&mut self, n: usize) -> Option<()> {
        self.sized(n)?;
        self.push(Node::Opaque)
    }

    /// The top value, above the last mark.
    fn pop(&mut self) -> Option<Id> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return None;
        }
        self.stack.pop()
    }

    fn pop_to_mark(&mut self) -> Option<Vec<Id>> {
        let mark = self.marks.pop()?;
        Some(self.stack.split_off(mark))
    }

    fn top(&self) -> Option<Id> {
        self.stack.last().copied()
    }

    fn node(&self, id: Id) -> Option<&Node<'a>> {
        self.trace.nodes.get(id as usize)
    }

    fn tuple(&mut self, n: usize) -> Option<()> {
        let mut items = Vec::with_capacity(n);
        for _ in 0..n {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Node::Tuple(items))
    }

    fn set_items(&mut self, items: &[Id]) -> Option<()> {
        let dict = self.top()?;
        if !items.len().is_multiple_of(2) {
            return None;
        }
        if let Node::Dict(entries, _) = self.trace.nodes.get_mut(dict as usize)? {
            entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Some(())
    }

    fn global(&mut self, module: Id, name: Id) -> Option<()> {
        let (&Node::Str(module), &Node::Str(name)) = (self.node(module)?, self.node(name)?) else {
            return None;
        };
        self.trace.globals.push((module, name));
        self.push(Node::Global(module, name))
    }

    fn call(&mut self) -> Option<()> {
        let (args, of) = (self.pop()?, self.pop()?);
        self.trace.calls.push((of, args));
        self.push(Node::Made {
            of,
            state: None,
            end: self.pos,
        })
    }

    fn build(&mut self) -> Option<()> {
        let (given, object) = (self.pop()?, self.top()?);
        let after = self.pos;
        match self.trace.nodes.get_mut(object as usize)? {
            Node::Made { state, end, .. } => {
                *state = Some(given);
                *end = after;
                Some(())
            }
            // State for something whose maker is unknown could do anything.
            _ => None,
        }
    }

    fn memoize(&mut self) -> Option<()> {
        let top = self.top()?;
        self.memo.push(top);
        let (after, memo) = (self.pos, self.memo.len());
        if let Node::Dict(entries, place) = self.trace.nodes.get_mut(top as usize)?
            && entries.is_empty()
            && place.at + 1 == after
        {
            *place = Place { at: after, memo };
        }
        Some(())
    }

    fn fetch(&mut self, n: usize) -> Option<()> {
        let at = self.pos - 1;
        let index = self.uint(n)?;
        self.stack.push(*self.memo.get(index)?);
        self.trace.fetches.push((index, at));
        Some(())
    }

    fn int(&mut self) -> Option<()> {
        let value = i32::from_le_bytes(self.take(4)?.try_into().ok()?);
        self.push(Node::Int(value.into()))
    }

    fn long(&mut self) -> Option<()> {
        let bytes = self.sized(1)?;
        if bytes.len() > 8 {
            return self.push(Node::Opaque);
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(all)))
    }

    /// Follows one opcode; false after STOP.
    fn step(&mut self) -> Option<bool> {
        let opcode = self.take(1)?[0];
        match opcode {
            0x80 => (4..=5).contains(&self.take(1)?[0]).then_some(())?,
            0x95 => {
                self.trace.frames.push(self.pos - 1);
                self.take(8)?;
            }
            b'.' => {
                self.trace.root = self.pop()?;
                return (self.pos == self.data.len()).then_some(false);
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'N' => self.push(Node::Nil)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'K' => {
                let value = self.uint(1)? as i64;
                self.push(Node::Int(value))?;
            }
            b'M' => {
                let value = self.uint(2)? as i64;
                self.push(Node::Int(value))?;
            }
            b'J' => self.int()?,
            0x8a => self.long()?,
            b'G' => {
                let value = f64::from_be_bytes(self.take(8)?.try_into().ok()?);
                self.push(Node::Float(value))?;
            }
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            b'C' => self.opaque_sized(1)?,
            b'B' => self.opaque_sized(4)?,
            0x96 => self.opaque_sized(8)?,
            0x97 => {
                self.trace.buffers += 1;
                self.push(Node::Opaque)?;
            }
            0x98 => drop(self.top()?),
            _ => self.step_containers(opcode)?,
        }
        Some(true)
    }

    fn step_containers(&mut self, opcode: u8) -> Option<()> {
        match opcode {
            b')' => self.push(Node::Tuple(Vec::new())),
            0x85 => self.tuple(1),
            0x86 => self.tuple(2),
            0x87 => self.tuple(3),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items))
            }
            0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Node::Frozen(items))
            }
            b']' | 0x8f => self.push(Node::Opaque),
            b'a' => self.pop().map(drop),
            b'e' | 0x90 => self.pop_to_mark().map(drop),
            b'}' => {
                let place = Place {
                    at: self.pos,
                    memo: self.memo.len(),
                };
                self.push(Node::Dict(Vec::new(), place))
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)
            }
            b'h' => self.fetch(1),
            b'j' => self.fetch(4),
            0x94 => self.memoize(),
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                self.global(module, name)
            }
            b'R' | 0x81 => self.call(),
            b'b' => self.build(),
            _ => None,
        }
    }
}
