//! Predicates for `skip_serializing_if`.

/// Cloud Hypervisor's default for every plain flag is `false`, so `false` is left out.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
pub(crate) fn is_false(flag: &bool) -> bool {
    !*flag
}
