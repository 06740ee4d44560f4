//! Stand-in until the command table lands: replace this file whole.
#![allow(missing_docs, clippy::all, clippy::pedantic)]
use smallvec::SmallVec;
#[derive(Clone, Copy)]
pub struct CommandId(u16);
impl CommandId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
#[derive(Clone, Copy, PartialEq)]
pub struct CommandFlags(u32);
impl CommandFlags {
    pub const WRITE: Self = Self(1);
    pub const DENYOOM: Self = Self(2);
    pub const NO_AUTH: Self = Self(4);
    pub const NO_MULTI: Self = Self(8);
    pub const fn contains(self, o: Self) -> bool {
        self.0 & o.0 == o.0
    }
}
pub struct CommandSpec {
    pub id: CommandId,
    pub name: &'static str,
    pub arity: i32,
    pub flags: CommandFlags,
    pub subcommands: &'static [CommandSpec],
}
impl CommandSpec {
    pub fn full_name(&self) -> String {
        self.name.into()
    }
}
pub const COMMAND_COUNT: usize = 8;
static T: &[CommandSpec] = &[
    CommandSpec { id: CommandId(0), name: "get", arity: 2, flags: CommandFlags(0), subcommands: &[] },
    CommandSpec { id: CommandId(1), name: "set", arity: -3, flags: CommandFlags(3), subcommands: &[] },
    CommandSpec { id: CommandId(2), name: "del", arity: -2, flags: CommandFlags(1), subcommands: &[] },
    CommandSpec { id: CommandId(3), name: "exists", arity: -2, flags: CommandFlags(0), subcommands: &[] },
];
pub fn lookup(name: &[u8]) -> Option<&'static CommandSpec> {
    T.iter().find(|s| s.name.as_bytes().eq_ignore_ascii_case(name))
}
pub fn lookup_sub(c: &CommandSpec, name: &[u8]) -> Option<&'static CommandSpec> {
    None
}
pub fn keys(s: &CommandSpec, args: &[&[u8]], out: &mut SmallVec<[usize; 8]>) -> Result<(), ()> {
    if s.id.0 < 2 {
        out.push(1)
    } else {
        out.extend(1..args.len())
    }
    Ok(())
}
pub fn encode_command(args: &[&[u8]], buf: &mut Vec<u8>) {
    crate::encode::write_array_header(buf, args.len());
    for a in args {
        crate::encode::write_bulk(buf, a)
    }
}
