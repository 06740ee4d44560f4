//! Why a rule of `ACL SETUSER` cannot be applied, in Redis' words.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleError {
    /// No such command or category.
    Unknown,
    Syntax,
    KeysAfterAll,
    ChannelsAfterAll,
    NoSuchPassword,
    BadHash,
    ArgumentOfSubcommand,
    /// A second definition in the configuration.
    Duplicate,
    /// A selector: not there yet.
    Selector,
}

impl RuleError {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown command or category name in ACL",
            Self::Syntax => "Syntax error",
            Self::KeysAfterAll => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try \
                 'resetkeys' to start with an empty list of patterns"
            }
            Self::ChannelsAfterAll => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. \
                 Try 'resetchannels' to start with an empty list of channels"
            }
            Self::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            Self::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            Self::ArgumentOfSubcommand => "Allowing first-arg of a subcommand is not supported",
            Self::Duplicate => "Duplicate user found. A user can only be defined once in config files",
            Self::Selector => {
                "selectors in parentheses are not supported by this version yet; give each set of rights a user of its own"
            }
        }
    }
}

/// Whether a name or a pattern cannot be a word of a line.
pub(crate) fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b))
}

/// Puts what stands in parentheses together, as one rule; where the parenthesis opens that is never closed.
pub(crate) fn merge_parentheses<'a>(
    rules: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Vec<u8>>, usize> {
    let mut merged: Vec<Vec<u8>> = Vec::new();
    let mut open = None;
    for (index, rule) in rules.into_iter().enumerate() {
        match (open, merged.last_mut()) {
            (Some(_), Some(selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(rule);
            }
            _ => merged.push(rule.to_vec()),
        }
        let opens = open.is_none() && rule.first() == Some(&b'(');
        if opens {
            open = Some(index);
        }
        if open.is_some() && rule.last() == Some(&b')') {
            open = None;
        }
    }
    open.map_or(Ok(merged), Err)
}
