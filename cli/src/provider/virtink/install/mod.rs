//! What a host needs before it can take machines: Virtink, and cert-manager, which makes its
//! webhooks' certificates. Each comes from its release's manifest; what is missing of it is made,
//! what is newer than it is left alone.
//!
//! ```text
//! source ──► manifest ──► component ──► found, kinds
//! (file, URL)  (pure)     looked for, judged, made, waited for
//! ```

mod component;
mod found;
mod kinds;
mod manifest;
mod source;

pub(crate) use component::install;
pub(crate) use source::Sources;
