//! Money: exact integers at scale 10^-15 of a currency's unit. Never floats, never rounded here.

use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// Decimal places of [`Money`]: one unit of the integer is 10^-15 of a dollar, euro, ...
pub const MONEY_SCALE: u32 = 15;

const SCALED_UNIT: i128 = 10_i128.pow(MONEY_SCALE);

/// An exact amount in some currency. Written as a plain decimal (`0.000125`), never rounded.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Money(i128);

/// A text that is not an exact amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount of money: use a plain decimal with at most 15 places, as 0.25")]
pub struct InvalidMoney(String);

impl Money {
    /// The amount of nothing.
    pub const ZERO: Self = Self(0);

    /// Creates an amount from its integer in units of 10^-15.
    pub const fn from_scaled(scaled: i128) -> Self {
        Self(scaled)
    }

    /// Returns the integer in units of 10^-15.
    pub const fn as_scaled(self) -> i128 {
        self.0
    }

    /// Multiplies a unit price by a quantity; `None` on overflow.
    pub fn checked_times(self, quantity: u64) -> Option<Self> {
        self.0.checked_mul(i128::from(quantity)).map(Self)
    }
}

impl Add for Money {
    type Output = Self;
    // Saturates: overflow would need 10^23 currency units, and a sum must not panic in `evolve`.
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl FromStr for Money {
    type Err = InvalidMoney;
    fn from_str(text: &str) -> Result<Self, InvalidMoney> {
        let invalid = || InvalidMoney(text.chars().take(40).collect());
        let decimal = Decimal::from_str_exact(text).map_err(|_| invalid())?;
        if decimal.normalize().scale() > MONEY_SCALE {
            return Err(invalid());
        }
        let decimal = decimal.normalize();
        let factor = 10_i128.pow(MONEY_SCALE - decimal.scale());
        decimal.mantissa().checked_mul(factor).map(Self).ok_or_else(invalid)
    }
}

impl TryFrom<String> for Money {
    type Error = InvalidMoney;
    fn try_from(text: String) -> Result<Self, InvalidMoney> {
        text.parse()
    }
}

impl From<Money> for String {
    fn from(money: Money) -> String {
        money.to_string()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let magnitude = self.0.unsigned_abs();
        let (whole, fraction) =
            (magnitude / SCALED_UNIT.unsigned_abs(), magnitude % SCALED_UNIT.unsigned_abs());
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{fraction:015}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// A currency by its ISO 4217 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Currency {
    /// United States dollar, in which most model providers bill.
    #[serde(rename = "USD")]
    Usd,
    /// Euro, for providers that bill in it.
    #[serde(rename = "EUR")]
    Eur,
}

impl Currency {
    /// Alphabetic code of ISO 4217.
    pub fn iso_code(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Eur => "EUR",
        }
    }
}
