//! Token buckets that limit a device's I/O.

use serde::{Deserialize, Serialize};

/// A token bucket: `size` tokens every `refill_time`, after an initial burst.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenBucket {
    /// Tokens the bucket holds: bytes or operations.
    pub size: u64,
    /// Tokens given once, on top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
    /// Milliseconds until an empty bucket is full.
    pub refill_time: u64,
}

/// Limits by bytes and by operations, both optional.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimiterConfig {
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// Operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

/// Limits that several disks share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimitGroupConfig {
    /// The name disks refer to.
    pub id: String,
    /// The limits.
    pub rate_limiter_config: RateLimiterConfig,
}
