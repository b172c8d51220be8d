//! The one pickle that we write: a source to run, then an object of a class from it. None is ever read.

use std::io::Write as _;

use flate2::{Compression, write::DeflateEncoder};

/// A plugin as `register_scheduler_plugin` takes it: `exec(boot, {…})`, its result dropped, then `_remuda_HASH.CLASS()`.
pub(super) fn plugin(boot: &str, source: &str, hash: &str, version: &str, class: &str) -> Vec<u8> {
    let mut out = b"\x80\x04".to_vec();
    global(&mut out, "builtins", "exec");
    text(&mut out, boot);
    out.extend_from_slice(b"}(");
    for (name, value) in [("H", hash), ("V", version), ("S", source), ("B", boot)] {
        text(&mut out, name);
        text(&mut out, value);
    }
    // SETITEMS, TUPLE2, REDUCE, POP.
    out.extend_from_slice(b"u\x86R0");
    global(&mut out, &format!("_remuda_{hash}"), class);
    // EMPTY_TUPLE, REDUCE, STOP.
    out.extend_from_slice(b")R.");
    out
}

/// STACK_GLOBAL of two strings.
fn global(out: &mut Vec<u8>, module: &str, name: &str) {
    text(out, module);
    text(out, name);
    out.push(0x93);
}

/// BINUNICODE.
fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Raw DEFLATE.
pub(super) fn deflated(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(text);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_a_call_after_a_call() {
        let mut expected = b"\x80\x04X\x08\0\0\0builtinsX\x04\0\0\0exec\x93X\x02\0\0\0a\n}(X\x01\0\0\0HX\x02\0\0\0ff".to_vec();
        expected.extend_from_slice(b"X\x01\0\0\0VX\x01\0\0\x001X\x01\0\0\0SX\x01\0\0\0sX\x01\0\0\0BX\x02\0\0\0a\nu\x86R0");
        expected.extend_from_slice(b"X\x0a\0\0\0_remuda_ffX\x01\0\0\0W\x93)R.");
        assert_eq!(plugin("a\n", "s", "ff", "1", "W"), expected);
    }
}
