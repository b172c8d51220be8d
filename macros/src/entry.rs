//! `#[remuda::main]` and `#[remuda::test]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, ItemFn, Result, parse2};

fn parse(attr: &TokenStream, item: TokenStream, what: &str) -> Result<ItemFn> {
    if !attr.is_empty() {
        return Err(Error::new_spanned(attr, format!("`#[remuda::{what}]` takes no arguments")));
    }
    let function: ItemFn = parse2(item)?;
    match function.sig.inputs.first() {
        Some(input) => Err(Error::new_spanned(input, format!("a function under `#[remuda::{what}]` takes no parameters"))),
        None => Ok(function),
    }
}

pub(crate) fn main(attr: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let ItemFn { attrs, vis, sig, block } = parse(&attr, item, "main")?;
    let (name, output) = (&sig.ident, &sig.output);
    let body = match sig.asyncness {
        Some(_) => quote! { async fn body() #output #block ::remuda::__private::block_on_main(body()) },
        None => quote! { fn body() #output #block ::remuda::__private::run_main(body) },
    };
    Ok(quote! {
        #(#attrs)*
        #vis fn #name() -> ::std::process::ExitCode {
            ::remuda::init();
            #body
        }
    })
}

pub(crate) fn test(attr: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let ItemFn { attrs, vis, sig, block } = parse(&attr, item, "test")?;
    let (name, output) = (&sig.ident, &sig.output);
    let body = match sig.asyncness {
        Some(_) => quote! { ::remuda::__private::block_on_test(async move #block) },
        None => quote! { #block },
    };
    Ok(quote! {
        #[::core::prelude::v1::test]
        #(#attrs)*
        #vis fn #name() #output {
            ::remuda::__private::init_test(concat!(module_path!(), "::", stringify!(#name)));
            #body
        }
    })
}
