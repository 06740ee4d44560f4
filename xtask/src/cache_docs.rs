//! Documentation of the caching layer that is written from its own tables: settings of regions, and metrics.

use std::fmt::Write as _;

use mtcache_cache::{MetricKind, RegionMode, RegionPolicy, SETTINGS, SettingChange, all_metrics};
use mtcache_trading::{REGIONS, RegionTable};

use crate::generated::Document;

/// Every setting of a region, and the shipped regions.
pub const CONFIGURATION_DOCUMENT: Document =
    Document { path: "docs/configuration.md", task: "configuration", text: configuration_text };

/// Every metric of the layer.
pub const METRICS_DOCUMENT: Document =
    Document { path: "docs/metrics.md", task: "metrics", text: metrics_text };

fn configuration_text() -> String {
    let modes: Vec<_> = RegionMode::ALL.iter().map(|mode| format!("`{mode}`")).collect();
    let mut text = String::from(
        "<!-- Written by `cargo run -p xtask -- configuration` from the cache's table of settings and the trading regions. Do not \
         edit. -->\n\n# Configuration of regions\n\nWhat is said later wins: code, then the TOML file that `MTCACHE_REGIONS_FILE` \
         names, then the environment. What makes no sense,\nor is not known, is refused with its line and a list of what there is. \
         `Trading::from_environment` reads both; `RegionChange`\nreads the settings of one region from any serde format, for regions \
         of a service's own.\n\n```toml\n[social_sentiment]\nttl = \"90s\"\nnear = true\n\n[backtest]\nload_timeout = \"10m\"\nmode \
         = \"shadow\"\n```\n\n```sh\nMTCACHE_REGIONS_FILE=/etc/mtcache/regions.toml\nMTCACHE_REGION_SOCIAL_SENTIMENT_TTL=90s\n```\n\n\
         ## Settings\n\nEach stands under a region's name in the file, and in capitals behind `MTCACHE_REGION_` and the region's \
         name in the\nenvironment. `reload` takes effect with `Trading::reload` or `RegionControl::reload`, for what is read and \
         stored from then\non; `open` when the region is opened. The default is a region's own where the table below has it.\n\n\
         | setting | takes | default | takes effect | what it is |\n|---|---|---|---|---|\n",
    );
    let defaults = RegionPolicy::new("any", std::time::Duration::from_secs(1));
    for setting in SETTINGS {
        let default = match setting.name {
            "ttl" => "the region's".to_owned(),
            _ => format!("`{}`", setting.value_in(&defaults)),
        };
        let effect = match setting.change {
            SettingChange::Live => "reload",
            SettingChange::AtOpen => "open",
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {effect} | {} |",
            setting.name,
            setting.takes,
            setting.help.trim()
        );
    }
    let _ = writeln!(
        text,
        "| `mode` | {} | `on` | reload | how reads are answered, see [operating-the-cache.md](operating-the-cache.md) |",
        modes.join(", ")
    );
    text += "\n## Regions\n\nWhat is shipped. The keys cannot be changed, because other services share them.\n\n| region | key |";
    let shown: Vec<_> = SETTINGS.iter().filter(|setting| differs_between_regions(setting.name)).collect();
    for setting in &shown {
        let _ = write!(text, " `{}` |", setting.name);
    }
    text += &format!("\n|---|---|{}\n", "---|".repeat(shown.len()));
    for spec in REGIONS {
        let _ = write!(text, "| `{}` | `{}` |", spec.name, spec.key);
        let policy = RegionTable::default().policy(spec.id).unwrap_or_else(|_| spec.policy());
        for setting in &shown {
            let _ = write!(text, " {} |", setting.value_in(&policy));
        }
        text.push('\n');
    }
    text
}

fn differs_between_regions(setting: &str) -> bool {
    let values = |name: &str| -> Vec<String> {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        REGIONS.iter().filter_map(|spec| Some(setting?.value_in(&spec.policy()))).collect()
    };
    let values = values(setting);
    values.windows(2).any(|pair| pair[0] != pair[1])
}

fn metrics_text() -> String {
    let mut text = String::from(
        "<!-- Written by `cargo run -p xtask -- metrics` from the cache's table of metrics. Do not edit. -->\n\n# Metrics of the caching \
         layer\n\nFor the recorder of the [`metrics`](https://docs.rs/metrics) crate that the process has, once a period, when the cache \
         was opened\nwith `CacheBuilder::report_metrics`. The only label is `region`; keys are never labels. The counters are those of \
         `Region::stats`,\n`Cache::stats` and `Cache::published_stats`, which need no recorder.\n\n| name | kind | label | what it \
         tells |\n|---|---|---|---|\n",
    );
    for metric in all_metrics() {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let label = if metric.by_region { "`region`" } else { "" };
        let _ = writeln!(text, "| `{}` | {kind} | {label} | {} |", metric.name, metric.help.trim());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_and_region_is_in_the_reference() {
        let text = configuration_text();
        for name in SETTINGS.iter().map(|setting| setting.name).chain(["mode"]) {
            let row = format!("\n| `{name}` | ");
            assert_eq!(text.matches(&row).count(), 1, "{name}");
        }
        for spec in REGIONS {
            assert!(text.contains(&format!("| `{}` | `{}` |", spec.name, spec.key)), "{}", spec.name);
        }
    }
}
