//! `#[remuda::task]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{
    Error, Expr, FnArg, GenericArgument, Ident, ItemFn, Meta, Pat, PathArguments, Result, ReturnType, Token, Type, parse::Parser, parse2,
    punctuated::Punctuated,
};

/// One parameter: what the caller gives, and how the body is given it.
struct Param {
    name: Ident,
    /// The type behind the reference or the `Arc`.
    owned: TokenStream,
    /// From `name: Arc<owned>` to the argument of the body.
    pass: TokenStream,
}

pub(crate) fn expand(attr: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let declared = annotations(attr)?;
    let function: ItemFn = parse2(item)?;
    refuse(&function)?;
    let ItemFn { attrs, vis, sig, block } = &function;
    let name = &sig.ident;
    let (docs, others): (Vec<_>, Vec<_>) = attrs.iter().partition(|attr| attr.path().is_ident("doc"));
    let (context, params) = params(&function)?;
    let (output, fallible) = output(&sig.output);

    let (names, types): (Vec<_>, Vec<_>) = params.iter().map(|p| (&p.name, &p.owned)).unzip();
    let passed = params.iter().map(|p| &p.pass);
    let cx = context.then(|| quote!(&__remuda_cx,));
    let called = quote!(#name::call(#cx #(#passed),*));
    let awaited = if sig.asyncness.is_some() { quote!(#called.await) } else { called };
    let result = if fallible {
        quote!(#awaited.map_err(|error| ::remuda::__private::failure(::core::convert::Into::into(error))))
    } else {
        quote!(::core::result::Result::Ok(#awaited))
    };
    let body = if sig.asyncness.is_some() {
        quote!({
            let __remuda_cx = ::core::clone::Clone::clone(__remuda_cx);
            let _ = &__remuda_cx;
            ::remuda::__private::future(async move { #result })
        })
    } else {
        quote!({ let _ = &__remuda_cx; ::remuda::__private::ready(#result) })
    };
    let (count, signature) = (params.len(), quote!(#sig).to_string());
    let title = format!("The body of the task [`{name}()`], as `{name}::call`.");
    let (inputs, body_output) = (&sig.inputs, &sig.output);
    let (asyncness, label) = (&sig.asyncness, name.to_string());
    Ok(quote! {
        #[doc = #title]
        #[allow(non_camel_case_types)]
        #vis struct #name {}

        #[allow(clippy::all, clippy::pedantic, missing_debug_implementations)]
        impl #name {
            #(#docs)*
            #[doc = ""]
            #(#others)*
            #[allow(missing_docs)]
            #vis #asyncness fn call(#inputs) #body_output #block
        }

        const _: () = {
            fn host(__remuda_scope: ::remuda::__private::TaskScope, __remuda_bytes: &[u8]) -> ::remuda::__private::Job {
                ::remuda::__private::host(__remuda_scope, ::remuda::__codec!(#output), |__remuda_cx| {
                    #[allow(unused_mut, unused_variables)]
                    let mut __remuda_args = ::remuda::__private::Args::new(__remuda_bytes, #count)?;
                    #(let #names = __remuda_args.next(stringify!(#names), ::remuda::__codec!(#types))?;)*
                    ::core::result::Result::Ok(#body)
                })
            }
            ::remuda::__private::inventory::submit! {
                ::remuda::__private::TaskDef {
                    name: concat!(module_path!(), "::", #label, "@", line!(), ":", column!()),
                    signature: #signature,
                    call: host,
                }
            }
        };

        #(#docs)*
        #[allow(clippy::too_many_arguments)]
        #vis fn #name(#(#names: impl ::core::convert::Into<::remuda::Arg<#types>>),*) -> ::remuda::Call<#output> {
            #[allow(unused_mut)]
            let mut __remuda_args = ::remuda::__private::Builder::default();
            #(let #names = __remuda_args.take(stringify!(#names), #names.into(), ::remuda::__codec!(#types), ::remuda::__fields!(#types));)*
            let __remuda_call = __remuda_args.call(
                concat!(module_path!(), "::", #label, "@", line!(), ":", column!()),
                ::remuda::__codec!(#output),
                #[allow(unused_variables)]
                move |__remuda_cx, __remuda_inputs| {
                    let __remuda_taken = (|| ::core::result::Result::Ok::<_, ::remuda::__private::TaskError>((#(#names.get(__remuda_inputs)?,)*)))();
                    match __remuda_taken {
                        ::core::result::Result::Ok((#(#names,)*)) => #body,
                        ::core::result::Result::Err(error) => ::remuda::__private::ready(::core::result::Result::Err(error)),
                    }
                },
            );
            __remuda_call #declared
        }
    })
}

fn refuse(function: &ItemFn) -> Result<()> {
    let sig = &function.sig;
    let wrong = |at: &dyn quote::ToTokens, text: &str| Err(Error::new_spanned(at.to_token_stream(), text));
    if let Some(param) = sig.generics.params.first() {
        return wrong(param, "a task is called by name in another process, so it cannot be generic");
    }
    if let Some(variadic) = &sig.variadic {
        return wrong(variadic, "a task takes a fixed number of parameters");
    }
    if let Some(unsafety) = &sig.unsafety {
        return wrong(unsafety, "a task cannot be unsafe");
    }
    match sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) => wrong(receiver, "a task is a free function: it takes no `self`"),
        _ => Ok(()),
    }
}

/// Whether the first parameter is the context, and the others.
fn params(function: &ItemFn) -> Result<(bool, Vec<Param>)> {
    let mut context = false;
    let mut params = Vec::new();
    for (index, input) in function.sig.inputs.iter().enumerate() {
        let FnArg::Typed(input) = input else { continue };
        if index == 0 && is_context(&input.ty) {
            context = true;
            continue;
        }
        let name = match &*input.pat {
            Pat::Ident(ident) => ident.ident.clone(),
            _ => format_ident!("arg{index}"),
        };
        let (owned, pass) = match &*input.ty {
            Type::Reference(reference) if reference.mutability.is_some() => {
                return Err(Error::new_spanned(&input.ty, "a task cannot change its arguments: other tasks may hold them"));
            }
            Type::Reference(reference) => match &*reference.elem {
                Type::Path(path) if path.path.is_ident("str") => (quote!(::std::string::String), quote!(#name.as_str())),
                Type::Slice(slice) => {
                    let item = &slice.elem;
                    (quote!(::std::vec::Vec<#item>), quote!(#name.as_slice()))
                }
                Type::TraitObject(object) => return Err(Error::new_spanned(object, "a parameter needs a type whose size is known")),
                elem => (quote!(#elem), quote!(&*#name)),
            },
            Type::ImplTrait(ty) => return Err(Error::new_spanned(ty, "a parameter of a task needs a concrete type")),
            ty => match generic(ty, "Arc") {
                Some(inner) => (quote!(#inner), quote!(#name)),
                None => (quote!(#ty), quote!(::remuda::__private::own(#name))),
            },
        };
        params.push(Param { name, owned, pass });
    }
    Ok((context, params))
}

fn is_context(ty: &Type) -> bool {
    let Type::Reference(reference) = ty else { return false };
    matches!(&*reference.elem, Type::Path(path) if path.path.segments.last().is_some_and(|s| s.ident == "TaskContext"))
}

/// The first type argument of `Name<..>`.
fn generic<'t>(ty: &'t Type, name: &str) -> Option<&'t Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(args) = &last.arguments else { return None };
    args.args.iter().find_map(|arg| if let GenericArgument::Type(ty) = arg { Some(ty) } else { None })
}

/// The type of the result, and whether the function can fail: as far as it can be seen, which is the word `Result`.
fn output(output: &ReturnType) -> (TokenStream, bool) {
    match output {
        ReturnType::Default => (quote!(()), false),
        ReturnType::Type(_, ty) => match generic(ty, "Result") {
            Some(inner) => (quote!(#inner), true),
            None => (quote!(#ty), false),
        },
    }
}

/// `priority = 1, retries = 2, resources(GPU = 1)` as calls of the builder.
fn annotations(attr: TokenStream) -> Result<TokenStream> {
    let metas = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(attr)?;
    let mut setters = Vec::new();
    for meta in &metas {
        let path = meta.path();
        let key = path.get_ident().map(Ident::to_string).unwrap_or_default();
        match (key.as_str(), meta) {
            ("priority" | "retries" | "allowed_failures" | "slots" | "allow_other_workers", Meta::NameValue(pair)) => {
                let (setter, value) = (Ident::new(&key, Span::call_site()), &pair.value);
                setters.push(quote!(.#setter(#value)));
            }
            ("name", Meta::NameValue(pair)) => {
                let value = &pair.value;
                setters.push(quote!(.named(#value)));
            }
            ("worker", Meta::NameValue(pair)) => {
                let value = &pair.value;
                setters.push(quote!(.worker(#value)));
            }
            ("timeout", Meta::NameValue(pair)) => {
                let value = &pair.value;
                setters.push(quote!(.timeout(::std::time::Duration::from_secs_f64((#value) as f64))));
            }
            ("resources", Meta::List(list)) => {
                for pair in list.parse_args_with(Punctuated::<syn::MetaNameValue, Token![,]>::parse_terminated)? {
                    let name = pair.path.require_ident()?.to_string();
                    let amount: &Expr = &pair.value;
                    setters.push(quote!(.resource(#name, (#amount) as f64)));
                }
            }
            _ => {
                let text = "expected one of priority, retries, allowed_failures, slots, timeout, worker, allow_other_workers, name = .. or resources(NAME = ..)";
                return Err(Error::new_spanned(meta, text));
            }
        }
    }
    Ok(if setters.is_empty() { quote!() } else { quote!(.declared(::remuda::Annotate::new() #(#setters)*)) })
}
