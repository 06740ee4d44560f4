//! How large a position may be: what the account may lose on one trade, over how far away the stop is.
//!
//! Invariant: an approved position never risks more than the limit, and its stop is on the losing side of the price. A
//! request that makes no sense is an error, one that is merely unwise is answered with `approved: false` and the reasons.

use mtcache::trading::{Extra, OrderSide, PositionSizing, SizingRequest};
use serde_json::json;

use crate::bars::BarSeries;
use crate::{Error, ErrorKind};

/// What the risk manager allows.
#[derive(Clone, Debug)]
pub struct RiskLimits {
    /// Money in the account. Default: 100,000 USD.
    pub account_usd: f64,
    /// What one trade may lose when the request does not say, in percent of the account. Default: 1.
    pub default_risk_percent: f64,
    /// What one trade may lose at the most, in percent of the account. Default: 2.
    pub max_risk_percent: f64,
    /// The largest position, in percent of the account. Default: 20.
    pub max_position_percent: f64,
    /// The weakest signal that is acted upon. Default: 0.2.
    pub min_signal_strength: f64,
    /// Daily volatility above which positions are halved. Default: 0.04.
    pub high_volatility: f64,
}

impl Default for RiskLimits {
    fn default() -> Self {
        Self {
            account_usd: 100_000.0,
            default_risk_percent: 1.0,
            max_risk_percent: 2.0,
            max_position_percent: 20.0,
            min_signal_strength: 0.2,
            high_volatility: 0.04,
        }
    }
}

/// Days of returns that volatility is taken from.
const VOLATILITY_DAYS: usize = 20;

/// How many standard deviations of a day the stop is away, when the request does not say.
const STOP_DEVIATIONS: f64 = 2.5;

/// Sizes a position. Volatility comes from the request or, when it has none, from the bars.
pub fn size(
    request: &SizingRequest,
    series: &BarSeries,
    limits: &RiskLimits,
) -> Result<PositionSizing, Error> {
    check(request)?;
    let mut warnings = Vec::new();
    let volatility = volatility(request, series, &mut warnings)?;
    let stop = stop_fraction(request, volatility, &mut warnings);
    let risk_percent = risk_percent(request, limits, &mut warnings);

    let mut size_usd = limits.account_usd * risk_percent / 100.0 / stop * request.signal_strength;
    if volatility > limits.high_volatility {
        warnings.push(format!("volatility of {:.1} % a day: position halved", volatility * 100.0));
        size_usd /= 2.0;
    }
    let largest = limits.account_usd * limits.max_position_percent / 100.0;
    if size_usd > largest {
        warnings.push(format!("capped at {:.0} % of the account", limits.max_position_percent));
        size_usd = largest;
    }
    let strong_enough = request.signal_strength >= limits.min_signal_strength;
    if !strong_enough {
        warnings.push(format!("signal weaker than {:.2}: not approved", limits.min_signal_strength));
    }
    // Rounded down to the cent, so that rounding never adds risk.
    let size_usd = (size_usd * 100.0).floor() / 100.0;
    let approved = strong_enough && size_usd > 0.0;
    let max_loss_usd = size_usd * stop;
    let direction = match request.order_side {
        OrderSide::Buy => -1.0,
        OrderSide::Sell => 1.0,
    };
    let mut extra = Extra::new();
    extra.insert("symbol".into(), json!(request.symbol));
    extra.insert("strategy_id".into(), json!(request.strategy_id));
    extra.insert("volatility".into(), json!(volatility));
    Ok(PositionSizing {
        recommended_size_usd: size_usd,
        recommended_quantity: size_usd / request.current_price,
        position_risk_percent: max_loss_usd / limits.account_usd * 100.0,
        stop_loss_price: request.current_price * (1.0 + direction * stop),
        max_loss_usd,
        warnings,
        approved,
        extra,
    })
}

fn check(request: &SizingRequest) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::new(ErrorKind::Request, what));
    if !(request.current_price.is_finite() && request.current_price > 0.0) {
        return refuse(format!("current_price is {}, which is no price", request.current_price));
    }
    if !(0.0..=1.0).contains(&request.signal_strength) {
        return refuse(format!("signal_strength is {}, which is not within 0 to 1", request.signal_strength));
    }
    let percents = [
        ("stop_loss_percent", request.stop_loss_percent),
        ("risk_per_trade_percent", request.risk_per_trade_percent),
    ];
    for (name, percent) in percents {
        if percent.is_some_and(|percent| !(percent > 0.0 && percent < 100.0)) {
            return refuse(format!("{name} is {percent:?}, which is not between 0 and 100"));
        }
    }
    if request.volatility.is_some_and(|volatility| !(volatility.is_finite() && volatility >= 0.0)) {
        return refuse(format!("volatility is {:?}, which is none", request.volatility));
    }
    Ok(())
}

fn volatility(request: &SizingRequest, series: &BarSeries, warnings: &mut Vec<String>) -> Result<f64, Error> {
    if let Some(volatility) = request.volatility {
        return Ok(volatility);
    }
    if series.bars.len() <= VOLATILITY_DAYS {
        warnings.push(format!("only {} bars to take the volatility from", series.bars.len()));
    }
    series.daily_volatility(VOLATILITY_DAYS).ok_or_else(|| {
        Error::new(ErrorKind::Request, format!("{} has too few bars; send a volatility", request.symbol))
    })
}

fn stop_fraction(request: &SizingRequest, volatility: f64, warnings: &mut Vec<String>) -> f64 {
    let noise = volatility * STOP_DEVIATIONS;
    match request.stop_loss_percent {
        Some(percent) => {
            let stop = percent / 100.0;
            if stop < volatility {
                warnings.push("the stop is within one day's usual move".into());
            }
            stop
        }
        // Between half a percent and half the price, whatever the share does.
        None => noise.clamp(0.005, 0.5),
    }
}

fn risk_percent(request: &SizingRequest, limits: &RiskLimits, warnings: &mut Vec<String>) -> f64 {
    let wanted = request.risk_per_trade_percent.unwrap_or(limits.default_risk_percent);
    if wanted > limits.max_risk_percent {
        warnings.push(format!("risk of {wanted} % lowered to the limit of {} %", limits.max_risk_percent));
    }
    wanted.min(limits.max_risk_percent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::tests::series_of;

    fn request() -> SizingRequest {
        SizingRequest {
            symbol: "TEST".into(),
            strategy_id: "ma".into(),
            signal_strength: 1.0,
            current_price: 50.0,
            volatility: Some(0.02),
            stop_loss_percent: Some(10.0),
            risk_per_trade_percent: Some(1.0),
            order_side: OrderSide::Buy,
            extra: Extra::new(),
        }
    }

    fn answer(request: &SizingRequest) -> PositionSizing {
        size(request, &series_of(&[]), &RiskLimits::default()).unwrap()
    }

    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-9, "{left} is not {right}");
    }

    #[test]
    fn one_percent_of_the_account_is_lost_at_the_stop() {
        let answer = answer(&request());
        // 1 % of 100,000 over a stop of 10 %.
        close(answer.recommended_size_usd, 10_000.0);
        close(answer.recommended_quantity, 200.0);
        close(answer.max_loss_usd, 1000.0);
        close(answer.position_risk_percent, 1.0);
        close(answer.stop_loss_price, 45.0);
        assert!(answer.approved && answer.warnings.is_empty());
    }

    #[test]
    fn stop_of_a_sale_is_above_the_price() {
        close(answer(&SizingRequest { order_side: OrderSide::Sell, ..request() }).stop_loss_price, 55.0);
    }

    #[test]
    fn large_position_is_capped_and_says_so() {
        let answer = answer(&SizingRequest { stop_loss_percent: Some(2.5), ..request() });
        close(answer.recommended_size_usd, 20_000.0);
        assert!(answer.warnings.iter().any(|warning| warning.contains("capped")));
    }

    #[test]
    fn risk_beyond_the_limit_is_lowered() {
        let answer = answer(&SizingRequest {
            risk_per_trade_percent: Some(50.0),
            stop_loss_percent: Some(20.0),
            ..request()
        });
        close(answer.position_risk_percent, 2.0);
        assert!(answer.warnings[0].contains("lowered"));
    }

    #[test]
    fn weak_signal_is_answered_but_not_approved() {
        let answer = answer(&SizingRequest { signal_strength: 0.1, ..request() });
        assert!(!answer.approved);
        assert!(answer.warnings[0].contains("not approved"));
    }

    #[test]
    fn high_volatility_halves_the_position() {
        let calm = answer(&request());
        let wild = answer(&SizingRequest { volatility: Some(0.05), ..request() });
        close(wild.recommended_size_usd * 2.0, calm.recommended_size_usd);
    }

    #[test]
    fn volatility_comes_from_the_bars_when_not_given() {
        let series = series_of(&[100.0, 110.0, 99.0]);
        let request = SizingRequest { volatility: None, stop_loss_percent: None, ..request() };
        let answer = size(&request, &series, &RiskLimits::default()).unwrap();
        close(answer.extra["volatility"].as_f64().unwrap(), 0.1 * 2f64.sqrt());
        assert!(answer.warnings.iter().any(|warning| warning.contains("only 3 bars")));
        assert!(size(&request, &series_of(&[]), &RiskLimits::default()).is_err());
    }

    #[test]
    fn nonsense_is_an_error_not_an_answer() {
        for request in [
            SizingRequest { current_price: 0.0, ..request() },
            SizingRequest { current_price: f64::NAN, ..request() },
            SizingRequest { signal_strength: 1.5, ..request() },
            SizingRequest { stop_loss_percent: Some(0.0), ..request() },
            SizingRequest { risk_per_trade_percent: Some(-1.0), ..request() },
            SizingRequest { volatility: Some(f64::INFINITY), ..request() },
        ] {
            let error = size(&request, &series_of(&[]), &RiskLimits::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Request);
        }
    }
}
