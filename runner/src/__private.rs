//! The parts that `#[remuda::task]` puts together.

use std::{future::Future, marker::PhantomData, sync::Arc};

pub use inventory;
use remuda_core::value;
pub use remuda_core::{
    error::Result,
    host::TaskDef,
    task::{Job, Outcome, TaskError, TaskScope},
    value::{Codec, DecodeFn, EncodeFn},
};
use serde::{Serialize, de::DeserializeOwned};

pub use crate::{
    arg::Taken,
    call::{Body, Builder, failure},
    context::TaskContext,
    entry::{block_on_main, block_on_test, init_test, run_main},
    fields::{Field, Fields},
};

/// Tells what serde can do with `T`, where `T` is concrete but its traits are not known (in a macro): the inherent methods win where their
/// bounds hold, elsewhere the traits below answer.
#[derive(Debug)]
pub struct Probe<T>(PhantomData<fn() -> T>);

impl<T> Probe<T> {
    /// For one type.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Probe<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Serialize + 'static> Probe<T> {
    /// It can be written.
    #[must_use]
    pub fn encode(&self) -> Option<EncodeFn> {
        Some(value::encode_any::<T>)
    }
}

impl<T: DeserializeOwned> Probe<T> {
    /// It can be read.
    #[must_use]
    pub fn decode(&self) -> Option<DecodeFn<T>> {
        Some(value::decode_from::<T>)
    }
}

/// The answer where `T` is not `Serialize`.
pub trait NoEncode {
    /// It cannot be written.
    fn encode(&self) -> Option<EncodeFn> {
        None
    }
}

impl<T> NoEncode for Probe<T> {}

/// The answer where `T` is not `Deserialize`.
pub trait NoDecode<T> {
    /// It cannot be read.
    fn decode(&self) -> Option<DecodeFn<T>> {
        None
    }
}

impl<T> NoDecode<T> for Probe<T> {}

impl<T: crate::Inputs> Probe<T> {
    /// It may have futures in its fields.
    #[must_use]
    pub fn fields(&self) -> Option<Fields<T>> {
        Some(Fields::new())
    }
}

/// The answer where `T` does not derive `Inputs`.
pub trait NoFields<T> {
    /// It has none.
    fn fields(&self) -> Option<Fields<T>> {
        None
    }
}

impl<T> NoFields<T> for Probe<T> {}

/// [`Fields`] of a concrete type, if it has any.
#[doc(hidden)]
#[macro_export]
macro_rules! __fields {
    ($t:ty) => {{
        #[allow(unused_imports)]
        use $crate::__private::NoFields as _;
        $crate::__private::Probe::<$t>::new().fields()
    }};
}

/// [`Codec`] of a concrete type.
#[doc(hidden)]
#[macro_export]
macro_rules! __codec {
    ($t:ty) => {{
        #[allow(unused_imports)]
        use $crate::__private::{NoDecode as _, NoEncode as _};
        let probe = $crate::__private::Probe::<$t>::new();
        $crate::__private::Codec::<$t> { encode: probe.encode(), decode: probe.decode() }
    }};
}

/// The value for a by-value parameter.
pub fn own<T: Clone>(value: Arc<T>) -> T {
    Arc::unwrap_or_clone(value)
}

/// The arguments of a call that came from another process.
#[derive(Debug)]
pub struct Args<'a>(std::vec::IntoIter<&'a [u8]>);

impl<'a> Args<'a> {
    /// An array of `len` arguments.
    ///
    /// # Errors
    /// Something else.
    pub fn new(bytes: &'a [u8], len: usize) -> std::result::Result<Self, TaskError> {
        let parts = value::elements(bytes)?;
        if parts.len() != len {
            let text = format!("{} arguments for {len} parameters: this worker runs another build", parts.len());
            return Err(remuda_core::error::Error::new(remuda_core::error::ErrorKind::Unexpected, text).into());
        }
        Ok(Self(parts.into_iter()))
    }

    /// The next argument.
    ///
    /// # Errors
    /// It is not a `T`.
    pub fn next<T>(&mut self, name: &'static str, codec: Codec<T>) -> std::result::Result<Arc<T>, TaskError> {
        let bytes = self.0.next().unwrap_or_default();
        let decode =
            codec.decode.ok_or_else(|| crate::arg::unfit(format!("`{}` does not implement Deserialize", std::any::type_name::<T>())))?;
        Ok(Arc::new(decode(bytes.into()).map_err(|e| e.with_context("argument", name))?))
    }
}

/// Runs a body in a task host.
pub fn host<T: Send + Sync + 'static>(
    scope: TaskScope,
    codec: Codec<T>,
    body: impl FnOnce(&TaskContext) -> std::result::Result<Body<T>, TaskError>,
) -> Job {
    let lease = scope.slot.clone();
    let cx = TaskContext::new(scope, None);
    match crate::context::run_sync(lease.as_ref(), || body(&cx)) {
        Ok(body) => body.job(codec, lease),
        Err(error) => Job::Ready(Err(error)),
    }
}

/// A sync result as it is.
pub fn ready<T>(result: std::result::Result<T, TaskError>) -> Body<T> {
    Body::Ready(result)
}

/// An async body.
pub fn future<T>(body: impl Future<Output = std::result::Result<T, TaskError>> + Send + 'static) -> Body<T> {
    Body::Future(Box::pin(body))
}
