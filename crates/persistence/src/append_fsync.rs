//! How hard the journal is pressed to the disk (`appendfsync`).
//!
//! Only the choice and its words; who writes and syncs, and when, is for the floor above.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// When written commands are made durable (`appendfsync`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendFsync {
    /// Before a reply goes out.
    Always,
    /// About once a second; a loss of power costs at most that second. The default.
    #[default]
    Everysec,
    /// When the operating system likes.
    No,
}

impl AppendFsync {
    /// How often to sync in the background; `None` where syncs go with the replies or are left to the system.
    pub fn period(self) -> Option<Duration> {
        match self {
            Self::Everysec => Some(Duration::from_secs(1)),
            Self::Always | Self::No => None,
        }
    }

    /// The word of the option.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
            Self::No => "no",
        }
    }
}

impl FromStr for AppendFsync {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::Always, Self::Everysec, Self::No]
            .into_iter()
            .find(|policy| policy.as_str().eq_ignore_ascii_case(word))
            .ok_or("argument(s) must be one of the following: everysec, always, no")
    }
}

impl fmt::Display for AppendFsync {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_reads_back_from_its_word() {
        for policy in [AppendFsync::Always, AppendFsync::Everysec, AppendFsync::No] {
            assert_eq!(policy.to_string().to_uppercase().parse(), Ok(policy));
        }
        assert!("sometimes".parse::<AppendFsync>().is_err());
    }
}
