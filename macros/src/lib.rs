//! Attribute macros of Remuda: `#[remuda::task]`, `#[remuda::main]`, `#[remuda::test]`. Documented where they are re-exported.

mod entry;
mod inputs;
mod task;

use proc_macro::TokenStream;

/// Makes a function a task: calling it with values or futures gives a [`Call`](struct.Call.html) to submit; the body stays reachable as
/// `name::call`.
///
/// Parameters may be `T` (cloned out of what the task is given, so `T: Clone`), `&T`, `&str`, `&[T]` or `Arc<T>` (nothing is copied). A first
/// parameter `cx: &TaskContext` is given the task's context. The result may be a value or a `Result` with any error (spelt
/// so: an alias of another name counts as a value). Sync or async. Types
/// without serde's traits are accepted for `processes: false` and refused by name elsewhere.
///
/// Annotations may stand at the declaration: `#[remuda::task(priority = 1, retries = 2, allowed_failures = 0, slots = 0, timeout = 2.5,
/// name = "..", resources(GPU = 1))]` (`timeout` in seconds). What a scope or a call says wins over them.
#[proc_macro_attribute]
pub fn task(attr: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(attr.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Prepares `main` for worker processes (which are this program started again), runs it if it is async, handles Ctrl-C and SIGTERM, waits
/// for clusters to close, and turns an error into the exit code that stands for it.
#[proc_macro_attribute]
pub fn main(attr: TokenStream, item: TokenStream) -> TokenStream {
    entry::main(attr.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// A test, sync or async, whose flows may use worker processes.
#[proc_macro_attribute]
pub fn test(attr: TokenStream, item: TokenStream) -> TokenStream {
    entry::test(attr.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// For a struct or an enum whose fields may be [`Arg`](struct.Arg.html)s, so that they may hold futures.
#[proc_macro_derive(Inputs)]
pub fn inputs(item: TokenStream) -> TokenStream {
    inputs::expand(item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}
