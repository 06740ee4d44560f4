//! From a function to one that is cached.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{
    Error, FnArg, GenericArgument, Ident, ItemFn, Pat, PathArguments, Result, ReturnType, Type, parse_quote,
    parse2,
};

use crate::options::Options;

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let function: ItemFn = parse2(item)?;
    let options: Options = parse2(options)?;
    check(&function)?;
    let arguments = arguments(&function)?;
    for name in &options.skip {
        if !arguments.iter().any(|argument| argument.name == *name) {
            return Err(Error::new(name.span(), format!("there is no argument `{name}` to skip")));
        }
    }
    let answer = Answer::of(&function.sig.output);
    let (attributes, visibility, signature) = (&function.attrs, &function.vis, &function.sig);
    let mut uncached = function.clone();
    uncached.attrs = vec![parse_quote!(#[allow(clippy::unused_async)])];
    uncached.vis = syn::Visibility::Inherited;
    uncached.sig.ident = format_ident!("__uncached");

    let name = &signature.ident;
    let path = quote!(::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)));
    let (region, in_key) = match &options.region {
        Some(region) => (quote!(#region), quote!(::core::option::Option::Some(#path))),
        None => (quote!(::mtcache::cache::dotted(#path)), quote!(::core::option::Option::None)),
    };
    let in_key_arguments = arguments.iter().filter(|argument| !options.skip.contains(&argument.name));
    let keys = in_key_arguments.map(|Argument { name, .. }| quote!(.with(&#name)));
    let (cache, ttl) = (&options.cache, options.ttl);
    let none_ttl = match options.none_ttl {
        Some(ttl) => quote!(::core::option::Option::Some(::core::time::Duration::from_secs_f64(#ttl))),
        None => quote!(::core::option::Option::None),
    };
    let owned = arguments.iter().map(Argument::owned);
    let passed: Vec<_> = arguments.iter().map(Argument::passed).collect();
    let direct = arguments.iter().map(|Argument { name, by_reference, .. }| {
        if *by_reference { quote!(#name) } else { quote!(::core::clone::Clone::clone(&#name)) }
    });
    let direct: Vec<_> = direct.collect();
    let value = answer.value();
    let finish = match answer {
        Answer::Result(_) => quote! {
            let __region = __SITE.region(#cache, __policy)?;
            #(#owned)*
            let __read = __region
                .get_or_load(__key, move || async move { __uncached(#(#passed),*).await })
                .await?;
            ::core::result::Result::Ok(__read.value)
        },
        Answer::Plain(_) => quote! {
            let __read = match __SITE.region(#cache, __policy) {
                ::core::result::Result::Ok(__region) => {
                    #(#owned)*
                    __region
                        .get_or_load(__key, move || async move {
                            ::core::result::Result::<_, ::core::convert::Infallible>::Ok(__uncached(#(#passed),*).await)
                        })
                        .await
                }
                ::core::result::Result::Err(__error) => ::core::result::Result::Err(__error),
            };
            match __read {
                ::core::result::Result::Ok(__read) => __read.value,
                ::core::result::Result::Err(_) => __uncached(#(#direct),*).await,
            }
        },
    };
    Ok(quote! {
        #(#attributes)*
        #visibility #signature {
            #uncached
            static __SITE: ::mtcache::cache::CallSite<#value> = ::mtcache::cache::CallSite::new();
            let __key = ::mtcache::cache::CallKey::new(#in_key) #(#keys)*;
            let __policy = || {
                ::mtcache::RegionPolicy::new(#region, ::core::time::Duration::from_secs_f64(#ttl))
                    .none_ttl(#none_ttl)
            };
            #finish
        }
    })
}

fn check(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        return Err(Error::new(
            signature.fn_token.span,
            "a cached function is async: reading the cache may have to wait",
        ));
    }
    if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
        return Err(Error::new(
            signature.generics.span(),
            "a cached function has no generics, for its answers are stored as one type; leave lifetimes to be inferred",
        ));
    }
    Ok(())
}

struct Argument {
    name: Ident,
    by_reference: bool,
    of: Type,
}

impl Argument {
    /// A copy that the load can take along.
    fn owned(&self) -> TokenStream {
        let name = &self.name;
        if self.by_reference {
            let of = &self.of;
            quote!(let #name = <#of as ::std::borrow::ToOwned>::to_owned(#name);)
        } else {
            quote!(let #name = ::core::clone::Clone::clone(&#name);)
        }
    }

    fn passed(&self) -> TokenStream {
        let name = &self.name;
        if self.by_reference { quote!(&#name) } else { quote!(#name) }
    }
}

fn arguments(function: &ItemFn) -> Result<Vec<Argument>> {
    let argument = |input: &FnArg| {
        let typed = match input {
            FnArg::Typed(typed) => typed,
            FnArg::Receiver(receiver) => {
                return Err(Error::new(
                    receiver.span(),
                    "a method cannot be cached: what `self` adds to the answer would be missing from the key; cache a free \
                     function that takes what it needs, or call `Region::get_or_load`",
                ));
            }
        };
        let Pat::Ident(name) = &*typed.pat else {
            return Err(Error::new(
                typed.pat.span(),
                "an argument of a cached function is a name, not a pattern",
            ));
        };
        let (by_reference, of) = match &*typed.ty {
            Type::ImplTrait(of) => {
                return Err(Error::new(
                    of.span(),
                    "a cached function has no generics: name the argument's type",
                ));
            }
            Type::Reference(of) if of.mutability.is_some() => {
                return Err(Error::new(
                    of.span(),
                    "a cached function cannot change its arguments: it does not always run",
                ));
            }
            Type::Reference(of) => (true, (*of.elem).clone()),
            of => (false, of.clone()),
        };
        Ok(Argument { name: name.ident.clone(), by_reference, of })
    };
    function.sig.inputs.iter().map(argument).collect()
}

/// What a function returns.
enum Answer {
    Plain(Type),
    /// A result with such a value.
    Result(Type),
}

impl Answer {
    fn of(output: &ReturnType) -> Self {
        let ReturnType::Type(_, of) = output else { return Self::Plain(parse_quote!(())) };
        if let Type::Path(path) = &**of
            && let Some(last) = path.path.segments.last()
            && last.ident == "Result"
            && let PathArguments::AngleBracketed(arguments) = &last.arguments
            && let Some(GenericArgument::Type(value)) = arguments.args.first()
        {
            return Self::Result(value.clone());
        }
        Self::Plain((**of).clone())
    }

    fn value(&self) -> &Type {
        match self {
            Self::Plain(value) | Self::Result(value) => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_cached_is_refused_with_what_to_do() {
        let options = || quote!(cache = cache(), ttl = 60);
        let plain = || {
            quote!(
                async fn price(symbol: &str) -> u64 {
                    0
                }
            )
        };
        for (options, item, said) in [
            (
                options(),
                quote!(
                    async fn price<T: ToString>(symbol: T) -> u64 {
                        0
                    }
                ),
                "generic",
            ),
            (
                options(),
                quote!(
                    async fn price(&self, symbol: &str) -> u64 {
                        0
                    }
                ),
                "self",
            ),
            (
                options(),
                quote!(
                    fn price(symbol: &str) -> u64 {
                        0
                    }
                ),
                "async",
            ),
            (quote!(cache = cache()), plain(), "ttl"),
            (quote!(cache = cache(), ttl = 60, skip(client)), plain(), "no argument `client`"),
            (quote!(cache = cache(), ttl = 60, ttl = 61), plain(), "twice"),
            (quote!(cache = cache(), ttl = 0), plain(), "0.001"),
        ] {
            let refusal = expand(options, item).unwrap_err().to_string();
            assert!(refusal.contains(said), "{said}: {refusal}");
        }
    }
}
