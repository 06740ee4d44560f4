//! The words in `#[cached(...)]`.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, Ident, LitFloat, LitInt, LitStr, Result, Token, parenthesized};

pub(crate) struct Options {
    pub(crate) cache: Expr,
    pub(crate) ttl: f64,
    pub(crate) region: Option<LitStr>,
    pub(crate) none_ttl: Option<f64>,
    pub(crate) skip: Vec<Ident>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let (mut cache, mut ttl, mut region, mut none_ttl, mut skip) = (None, None, None, None, Vec::new());
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            let twice = |is_there: bool| {
                if is_there {
                    Err(Error::new(name.span(), format!("`{name}` is there twice")))
                } else {
                    Ok(())
                }
            };
            match name.to_string().as_str() {
                "cache" => {
                    twice(cache.is_some())?;
                    input.parse::<Token![=]>()?;
                    cache = Some(input.parse()?);
                }
                "ttl" => {
                    twice(ttl.is_some())?;
                    ttl = Some(seconds(input)?);
                }
                "none_ttl" => {
                    twice(none_ttl.is_some())?;
                    none_ttl = Some(seconds(input)?);
                }
                "region" => {
                    twice(region.is_some())?;
                    input.parse::<Token![=]>()?;
                    region = Some(input.parse()?);
                }
                "skip" => {
                    let names;
                    parenthesized!(names in input);
                    skip.extend(Punctuated::<Ident, Token![,]>::parse_terminated(&names)?);
                }
                _ => {
                    let known = "cache, ttl, region, none_ttl and skip";
                    return Err(Error::new(name.span(), format!("no option `{name}`; there are {known}")));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing = |what: &str| Error::new(Span::call_site(), what.to_owned());
        Ok(Self {
            cache: cache.ok_or_else(|| missing("say where the cache comes from: `cache = EXPR`"))?,
            ttl: ttl.ok_or_else(|| missing("say how long an answer is fresh: `ttl = SECONDS`"))?,
            region,
            none_ttl,
            skip,
        })
    }
}

fn seconds(input: ParseStream<'_>) -> Result<f64> {
    input.parse::<Token![=]>()?;
    let (value, span) = if input.peek(LitFloat) {
        let literal: LitFloat = input.parse()?;
        (literal.base10_parse::<f64>()?, literal.span())
    } else {
        let literal: LitInt =
            input.parse().map_err(|error| Error::new(error.span(), "a number of seconds is expected"))?;
        (literal.base10_parse::<u32>()?.into(), literal.span())
    };
    if value < 0.001 {
        return Err(Error::new(span, "a lifetime is at least a millisecond: 0.001"));
    }
    Ok(value)
}
