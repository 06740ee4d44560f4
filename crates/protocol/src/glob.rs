//! Glob patterns as KEYS, SCAN, PSUBSCRIBE, CONFIG GET and ACL use them, odd corners included.
//!
//! `*`, `?`, `[abc]`, `[^a-z]` and `\` work as expected. The corners that are kept because clients could rely
//! on them: an unterminated class ends with the pattern; `[a-]` is a range up to `]`; ranges compare signed
//! bytes; an escape inside a class is case-sensitive; nothing but the empty pattern matches the empty text.
//! Only the last `*` is ever retried, so the worst case is the product of the lengths, never exponential.

/// Whether `pattern` fits the whole of `text`; `nocase` ignores the case of ASCII letters.
///
/// ```
/// use mtcache_protocol::glob;
/// assert!(glob::matches(b"price:*:[0-9]?", b"price:BTC:15", false));
/// assert!(glob::matches(b"MAXMEMORY*", b"maxmemory-policy", true));
/// assert!(!glob::matches(b"a\\*", b"ab", false));
/// ```
pub fn matches(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on when what follows the last star did not fit: one byte further in the text.
    let mut retry: Option<(&[u8], &[u8])> = None;
    while let Some((byte, behind)) = text.split_first() {
        if pattern.first() == Some(&b'*') {
            pattern = skip_stars(pattern);
            if pattern.is_empty() {
                return true;
            }
            retry = Some((pattern, behind));
            continue;
        }
        if let Some(rest) = match_one(pattern, *byte, nocase) {
            (pattern, text) = (rest, behind);
            continue;
        }
        let Some((after_star, next)) = retry else { return false };
        (pattern, text) = (after_star, next);
        retry = next.get(1..).map(|further| (after_star, further));
    }
    skip_stars(pattern).is_empty()
}

fn skip_stars(pattern: &[u8]) -> &[u8] {
    let stars = pattern.iter().take_while(|b| **b == b'*').count();
    pattern.get(stars..).unwrap_or_default()
}

/// Matches `byte` against the element at the front of `pattern`, no star; gives what follows the element.
fn match_one(pattern: &[u8], byte: u8, nocase: bool) -> Option<&[u8]> {
    let (matched, rest) = match pattern {
        [] => return None,
        [b'?', rest @ ..] => (true, rest),
        [b'[', b'^', rest @ ..] => {
            let (found, rest) = match_class(rest, byte, nocase);
            (!found, rest)
        }
        [b'[', rest @ ..] => match_class(rest, byte, nocase),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (same(*literal, byte, nocase), rest),
    };
    matched.then_some(rest)
}

/// Whether `byte` is in the class whose inside starts here, and what follows the class.
fn match_class(mut class: &[u8], byte: u8, nocase: bool) -> (bool, &[u8]) {
    let mut found = false;
    loop {
        class = match class {
            [] => return (found, class),
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
            [b']', rest @ ..] => return (found, rest),
            [from, b'-', to, rest @ ..] => {
                found |= in_range(*from, *to, byte, nocase);
                rest
            }
            [literal, rest @ ..] => {
                found |= same(*literal, byte, nocase);
                rest
            }
        };
    }
}

fn in_range(from: u8, to: u8, byte: u8, nocase: bool) -> bool {
    // Bounds are put in order before the case is folded, as signed bytes.
    let (from, to) = if from.cast_signed() > to.cast_signed() { (to, from) } else { (from, to) };
    let fold = |b: u8| if nocase { b.to_ascii_lowercase() } else { b }.cast_signed();
    (fold(from)..=fold(to)).contains(&fold(byte))
}

fn same(a: u8, b: u8, nocase: bool) -> bool {
    a == b || nocase && a.eq_ignore_ascii_case(&b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::matches;

    /// The model: the pattern as elements that each say which bytes they take, then a table over all
    /// prefixes. Slow, and built without a thought of backtracking.
    fn model(pattern: &[u8], text: &[u8], nocase: bool) -> bool {
        enum Element {
            Star,
            One(Box<[bool; 256]>),
        }
        if text.is_empty() {
            return pattern.is_empty();
        }
        let lower = |b: u8| if nocase { b.to_ascii_lowercase() } else { b };
        let set = |test: &dyn Fn(u8) -> bool| {
            Element::One(Box::new(std::array::from_fn(|b| test(u8::try_from(b).unwrap()))))
        };
        let mut elements = Vec::new();
        let mut at = 0;
        while at < pattern.len() {
            match pattern[at] {
                b'*' => elements.push(Element::Star),
                b'?' => elements.push(set(&|_| true)),
                b'[' => {
                    at += 1;
                    let negated = pattern.get(at) == Some(&b'^');
                    at += usize::from(negated);
                    let mut taken = [false; 256];
                    while at < pattern.len() && pattern[at] != b']' {
                        if pattern[at] == b'\\' && at + 1 < pattern.len() {
                            at += 1;
                            taken[usize::from(pattern[at])] = true;
                        } else if at + 2 < pattern.len() && pattern[at + 1] == b'-' {
                            let (a, b) = (pattern[at] as i8, pattern[at + 2] as i8);
                            let (low, high) = (lower(a.min(b) as u8) as i8, lower(a.max(b) as u8) as i8);
                            for byte in 0..=255_u8 {
                                let folded = lower(byte) as i8;
                                taken[usize::from(byte)] |= low <= folded && folded <= high;
                            }
                            at += 2;
                        } else {
                            for byte in 0..=255_u8 {
                                taken[usize::from(byte)] |= lower(byte) == lower(pattern[at]);
                            }
                        }
                        at += 1;
                    }
                    elements.push(set(&|b| taken[usize::from(b)] != negated));
                }
                literal => {
                    let mut literal = literal;
                    if literal == b'\\' && at + 1 < pattern.len() {
                        at += 1;
                        literal = pattern[at];
                    }
                    elements.push(set(&|b| lower(b) == lower(literal)));
                }
            }
            at += 1;
        }
        // reached[n]: the elements so far can take exactly the first n bytes.
        let mut reached = vec![false; text.len() + 1];
        reached[0] = true;
        for element in &elements {
            let before = reached.clone();
            for n in 0..=text.len() {
                reached[n] = match element {
                    Element::Star => before[..=n].contains(&true),
                    Element::One(takes) => n > 0 && before[n - 1] && takes[usize::from(text[n - 1])],
                };
            }
        }
        reached[text.len()]
    }

    #[test]
    fn corners_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", false),
            ("*", "a", true),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*a", "a", true),
            ("?", "", false),
            ("[", "a", false),
            ("[^", "a", true),
            ("[a", "a", true),
            ("[]", "]", false),
            ("[^]", "x", true),
            ("[^]", "xx", false),
            ("[a-]", "b", false),
            ("[a-]", "^", true),
            ("[z-a]", "m", true),
            ("[\\]]", "]", true),
            ("[\\", "\\", true),
            ("\\", "\\", true),
            ("\\a", "a", true),
            ("\\*", "*", true),
            ("h[^a]llo", "hello", true),
            ("h[^a]llo", "hallo", false),
            ("*b*d", "abcd", true),
            ("*b*d", "abcde", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes(), false), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn case_is_ignored_on_request_but_not_behind_an_escape_in_a_class() {
        assert!(matches(b"ABc", b"abC", true));
        assert!(matches(b"[A-C]", b"b", true));
        assert!(!matches(b"[\\A]", b"a", true));
        assert!(!matches(b"ABc", b"abC", false));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = b"*a".repeat(2_000);
        let text = vec![b'a'; 1_999];
        assert!(!matches(&pattern, &text, false));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn matching_agrees_with_the_model(
            pattern in proptest::collection::vec(prop::sample::select(b"ab*?[]^-\\A\xe0".to_vec()), 0..9),
            text in proptest::collection::vec(prop::sample::select(b"abA]-^\\\xe0".to_vec()), 0..9),
            nocase: bool,
        ) {
            prop_assert_eq!(matches(&pattern, &text, nocase), model(&pattern, &text, nocase));
        }
    }
}
