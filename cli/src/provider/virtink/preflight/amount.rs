//! Kubernetes' quantities in full, as other people's objects have them: `1500m`, `4Gi`, `1e3`. In
//! thousandths, so that processors and bytes are the same to whoever adds them up. Pure.

use std::collections::BTreeMap;

/// Amounts by resource, in thousandths.
pub(super) type Amounts = BTreeMap<String, u128>;

/// `None` where it is none. Rounded up, as Kubernetes does.
pub(super) fn parse(text: &str) -> Option<u128> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (up, down) = scale(suffix)?;
    let below = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let above = digits.checked_mul(up)?.checked_mul(1000)?;
    Some(above.div_ceil(below.checked_mul(down)?))
}

/// By what a suffix multiplies and divides.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1u128 << (10 * power), 1));
    let decimal = |power: u32| Some((1000u128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10u128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

/// For people: `1.5` processors, `3.2 GiB`; anything else is a number.
pub(super) fn words(resource: &str, amount: u128) -> String {
    let whole = amount.div_ceil(1000);
    let bytes = ["memory", "storage"].iter().any(|b| resource.contains(b));
    if bytes && whole >= 1 << 20 {
        let mib = whole >> 20;
        return match mib >= 10 * 1024 {
            true => format!("{} GiB", mib / 1024),
            false => format!("{mib} MiB"),
        };
    }
    match amount % 1000 {
        0 => whole.to_string(),
        rest => format!("{}.{rest:03}", amount / 1000)
            .trim_end_matches('0')
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_notations() {
        for (text, thousandths) in [
            ("0", 0),
            ("3", 3000),
            ("1500m", 1500),
            ("0.5", 500),
            (".5", 500),
            ("1.", 1000),
            ("2k", 2_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1e3", 1_000_000),
            ("5E", 5_000_000_000_000_000_000_000),
            ("1E2", 100_000),
            ("100u", 1),
            ("2e-3", 2),
        ] {
            assert_eq!(parse(text), Some(thousandths), "{text}");
        }
        for bad in ["", "x", "-1", "1.2.3", "1Kib", "1e", "9e99", "."] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn for_people() {
        assert_eq!(words("requests.cpu", 1500), "1.5");
        assert_eq!(words("pods", 3000), "3");
        assert_eq!(words("memory", parse("2324Mi").unwrap()), "2324 MiB");
        assert_eq!(words("requests.memory", parse("1Ti").unwrap()), "1024 GiB");
    }
}
