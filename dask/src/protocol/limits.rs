//! How much a peer may send.

/// Bounds on every length that a peer announces. What is announced is never allocated: memory follows what has arrived.
///
/// The defaults let everything through that a healthy cluster sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all frames of one message. Default: 2 GiB.
    pub message: u64,
    /// Bytes of MessagePack to decode at once: the body, or one sub-header. Decoded it may take a hundred times the
    /// room. Default: 128 MiB.
    pub body: u64,
    /// Frames of one message. Default: 1,048,576 (half a million results in one answer).
    pub frames: u64,
    /// How many arrays and maps may be inside of one another. Default: 128.
    pub depth: u16,
}

impl Limits {
    /// Enough for a handshake: whoever sends more before it is no Dask.
    pub(crate) const HANDSHAKE: Self = Self { message: 65_536, body: 65_536, frames: 16, depth: 16 };
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: 2 << 30, body: 128 << 20, frames: 1 << 20, depth: 128 }
    }
}
