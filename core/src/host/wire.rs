//! What a task host and its driver say to each other: frames of [`MAGIC`], a little-endian length and one MessagePack value.
//!
//! The driver sends a [`Request`] and waits for one final [`Reply`]; only [`Request::Cancel`] may come in between, and what is said about
//! the tasks of a task ([`Reply::Ask`], [`Request::News`]). The channel is the
//! host's standard input, a socket; nothing is ever said on standard output, which belongs to the tasks.

use std::{
    fmt,
    io::{self, ErrorKind as Io, Read, Write},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::nested::{Ask, News};
use crate::{
    error::{Error, ErrorKind, Result},
    task::{Failure, Key},
    value,
};

/// Raised with every change of these types.
pub const VERSION: u32 = 4;

/// The host writes this line to standard output when it takes over: what was printed before (by a test harness, by the user's
/// static initialisers) is not a task's output.
pub const READY: &str = "\u{1e}remuda task host ready";

/// Every frame begins with this. Whatever else comes over the socket was written by somebody whose socket it is not.
pub const MAGIC: [u8; 4] = *b"RMDA";

/// What comes before a message: [`MAGIC`] and its length.
pub const HEADER: usize = 8;

/// The longest frame.
pub const LONGEST: usize = u32::MAX as usize;

/// To the host.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Run a Rust function.
    Call {
        /// As registered.
        function: String,
        /// MessagePack array of the arguments.
        args: Bytes,
        /// Which task.
        key: Key,
        /// Which attempt at it.
        attempt: u32,
        /// Scheduler name of the worker.
        worker: String,
    },
    /// Run a program.
    Command {
        /// A [`crate::task::CommandCall`] as MessagePack.
        call: Bytes,
    },
    /// What runs is to end soon.
    Cancel,
    /// Said once, before the first call, where nobody relays: what the tasks submit they bring to the scheduler themselves.
    Access(Access),
    /// About tasks that the running task has submitted.
    News(News),
}

/// The way to the scheduler of the worker that a host belongs to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Access {
    /// `tcp://host:port` or `tls://host:port`.
    pub address: String,
    /// With `tls://`.
    pub security: Option<AccessSecurity>,
}

/// As [`crate::security::Security`]: what the worker itself shows to the scheduler.
#[derive(Clone, Serialize, Deserialize)]
pub struct AccessSecurity {
    /// PEM text.
    pub ca: String,
    /// PEM text.
    pub cert: String,
    /// PEM text.
    pub key: String,
}

/// Without the key.
impl fmt::Debug for AccessSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessSecurity").finish_non_exhaustive()
    }
}

/// From the host.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The first one, unasked.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The host's process id.
        pid: u32,
        /// Name and signature of every registered task.
        tasks: Vec<(String, String)>,
    },
    /// The running command's process group, to be killed if the host dies.
    Group(u32),
    /// The running task wants something of the cluster.
    Ask(Ask),
    /// The result as MessagePack.
    Done(Bytes),
    /// The task failed.
    Failed(Failure),
    /// It ended because it was told to.
    Cancelled,
    /// It could not be run, or its result cannot be sent.
    Refused {
        /// It is the type of the result that does not go over a process border.
        unserializable: bool,
        /// What.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// One message as a frame.
///
/// # Errors
/// [`ErrorKind::Unserializable`] when it is longer than [`LONGEST`]: nothing is cut off.
pub fn frame<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    let mut out = rmp_serde::Serializer::new(&mut frame).with_struct_map();
    message.serialize(&mut out).map_err(|e| Error::new(ErrorKind::Unexpected, "a message to a task host").with_source(e))?;
    let length = u32::try_from(frame.len() - HEADER).map_err(|_| too_long(frame.len()))?;
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..HEADER].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// The length that a header tells; `None`: it is not one.
#[must_use]
pub fn length_of(header: [u8; HEADER]) -> Option<u32> {
    let [a, b, c, d, length @ ..] = header;
    ([a, b, c, d] == MAGIC).then(|| u32::from_le_bytes(length))
}

/// For values that do not fit into one frame.
#[must_use]
pub fn too_long(bytes: usize) -> Error {
    Error::new(ErrorKind::Unserializable, format!("{bytes} bytes are more than the 4 GiB that one value between processes may have"))
        .with_hint("pass a file name instead, or use `processes: false`")
}

/// Writes one message.
///
/// # Errors
/// When the other side is gone; or as [`frame`], as an error of kind `InvalidData`.
pub fn write<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    let frame = frame(message).map_err(|e| io::Error::new(Io::InvalidData, e))?;
    to.write_all(&frame)
}

/// Reads one message; `None` at the end.
///
/// # Errors
/// When the other side is gone in the middle of a message, or it is not one.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut header = [0; HEADER];
    match from.read_exact(&mut header) {
        Ok(()) => {}
        Err(e) if e.kind() == Io::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    }
    // Not allocated on the word of the other side alone.
    let mut body = Vec::new();
    let length = u64::from(length_of(header).ok_or_else(|| io::Error::new(Io::InvalidData, "not a frame"))?);
    if from.take(length).read_to_end(&mut body)? as u64 != length {
        return Err(Io::UnexpectedEof.into());
    }
    value::decode(&body).map(Some).map_err(|e| io::Error::new(Io::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_length_and_a_map() {
        let frame = frame(&Reply::Done(Bytes::from_static(b"\x2a"))).unwrap();
        // {"Done": bin 1 [42]}: the golden bytes another language has to read.
        assert_eq!(frame, b"RMDA\x09\0\0\0\x81\xa4Done\xc4\x01\x2a");
        assert!(matches!(read::<Reply>(&mut &frame[..]).unwrap(), Some(Reply::Done(value)) if value[..] == [0x2a]));
        assert!(read::<Reply>(&mut &frame[..0]).unwrap().is_none());
        assert!(read::<Reply>(&mut &frame[..11]).is_err(), "cut off in the middle");
        assert!(read::<Reply>(&mut &b"garbage that nobody asked for"[..]).is_err());
    }

    /// The shim on Dask's workers writes and reads these by hand.
    #[test]
    fn what_a_dask_worker_says_is_understood() {
        let understood = |body: &[u8]| value::decode::<Request>(body).unwrap();
        assert!(matches!(understood(b"\xa6Cancel"), Request::Cancel));
        let access = b"\x81\xa6Access\x82\xa7address\xa9tcp://a:1\xa8security\xc0";
        assert!(matches!(understood(access), Request::Access(Access { address, security: None }) if address == "tcp://a:1"));
        let call = b"\x81\xa4Call\x85\xa8function\xa1f\xa3key\x07\xa7attempt\x00\xa6worker\xa1w\xa4args\xc6\x00\x00\x00\x01\x90";
        assert!(matches!(understood(call), Request::Call { key: Key(7), args, .. } if args[..] == [0x90]));
        let pause = frame(&Reply::Ask(Ask::Pause)).unwrap();
        assert_eq!(pause[HEADER..], *b"\x81\xa3Ask\xa5Pause");
    }

    #[test]
    fn every_request_survives_the_way() {
        let call = Request::Call { function: "a::b".into(), args: vec![0x90].into(), key: Key(7), attempt: 1, worker: "0-0".into() };
        let security = AccessSecurity { ca: "a".into(), cert: "b".into(), key: "secret".into() };
        let access = Request::Access(Access { address: "tls://scheduler:8786".into(), security: Some(security) });
        for request in [call, Request::Command { call: vec![0x80].into() }, Request::Cancel, access] {
            let text = format!("{request:?}");
            let back: Request = read(&mut &frame(&request).unwrap()[..]).unwrap().unwrap();
            assert_eq!(format!("{back:?}"), text);
            assert!(!text.contains("secret"));
        }
    }
}
