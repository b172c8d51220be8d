//! `#[derive(remuda::Inputs)]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Ident, Result, Type, parse2};

pub(crate) fn expand(item: TokenStream) -> Result<TokenStream> {
    let item: DeriveInput = parse2(item)?;
    let variants: Vec<(TokenStream, &Fields)> = match &item.data {
        Data::Struct(data) => vec![(quote!(Self), &data.fields)],
        Data::Enum(data) => data
            .variants
            .iter()
            .map(|variant| {
                let name = &variant.ident;
                (quote!(Self::#name), &variant.fields)
            })
            .collect(),
        Data::Union(union) => return Err(Error::new_spanned(union.union_token, "a union has no fields to look into")),
    };
    let arms: Vec<TokenStream> = variants.iter().map(|(path, fields)| arm(path, fields)).collect();
    let (name, (generics, arguments, bounds)) = (&item.ident, item.generics.split_for_impl());
    Ok(quote! {
        impl #generics ::remuda::Inputs for #name #arguments #bounds {
            fn fields(&self) -> ::std::vec::Vec<&dyn ::remuda::__private::Field> {
                match self { #(#arms)* }
            }

            fn fields_mut(&mut self) -> ::std::vec::Vec<&mut dyn ::remuda::__private::Field> {
                match self { #(#arms)* }
            }
        }
    })
}

/// The fields of one variant that are arguments.
fn arm(path: &TokenStream, fields: &Fields) -> TokenStream {
    let bound: Vec<(TokenStream, Ident)> = fields
        .iter()
        .enumerate()
        .filter(|(_, field)| is_arg(&field.ty))
        .map(|(index, field)| {
            let member = field.ident.clone().map_or_else(
                || {
                    let index = syn::Index::from(index);
                    quote!(#index)
                },
                |name| quote!(#name),
            );
            (member, format_ident!("field{index}"))
        })
        .collect();
    let (members, names): (Vec<_>, Vec<_>) = bound.into_iter().unzip();
    quote!(#path { #(#members: #names,)* .. } => ::std::vec![#(#names),*],)
}

fn is_arg(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|segment| segment.ident == "Arg"))
}
