//! What there is of a component, and what that comes to. Pure.
//!
//! ```text
//!  nothing ─────────────────────────────────────────┐
//!  some of it, or not all of it works ──────────────┼─► made ─► waited for
//!  all of it works, older or as old ──► left alone  │
//!  newer, or in another namespace ────► left alone ─┘ (never made: only waited for)
//! ```

use super::manifest::Release;

/// What there is of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Of the manifest's objects.
    pub(super) total: usize,
    pub(super) missing: usize,
    /// Of its Deployments and DaemonSets, those that are there and do not work (yet).
    pub(super) late: usize,
    pub(super) version: Option<Release>,
    /// A namespace that has the same programs under other names.
    pub(super) elsewhere: Option<String>,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Make,
    /// It is another's, or newer: it is only waited for, if that.
    LeaveAlone,
    /// It works.
    Nothing,
}

impl Found {
    /// Pure.
    pub(super) fn act(&self, manifest: Option<Release>) -> Act {
        let newer = match (self.version, manifest) {
            (Some(found), Some(manifest)) => found > manifest,
            _ => false,
        };
        if self.elsewhere.is_some() || newer {
            return Act::LeaveAlone;
        }
        match self.missing + self.late {
            0 => Act::Nothing,
            _ => Act::Make,
        }
    }
    pub(super) fn was(&self) -> &'static str {
        match (self.missing, self.late) {
            _ if self.elsewhere.is_some() => "there already",
            (0, 0) => "there already",
            (missing, _) if missing == self.total => "missing",
            _ => "incomplete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_says_what_is_to_be_done() {
        let release = |image: &str| Release::of_image(image);
        let whole = Found {
            total: 5,
            version: release("a:v0.17.0"),
            ..Found::default()
        };
        let ours = release("a:v0.17.0");
        assert_eq!(
            (whole.act(ours), whole.was()),
            (Act::Nothing, "there already")
        );
        let absent = Found {
            total: 5,
            missing: 5,
            ..Found::default()
        };
        assert_eq!((absent.act(ours), absent.was()), (Act::Make, "missing"));
        let partial = Found {
            missing: 1,
            ..whole.clone()
        };
        assert_eq!(
            (partial.act(ours), partial.was()),
            (Act::Make, "incomplete")
        );
        let late = Found {
            late: 1,
            ..whole.clone()
        };
        assert_eq!((late.act(ours), late.was()), (Act::Make, "incomplete"));
        let newer = Found {
            missing: 1,
            version: release("a:v0.18.0"),
            ..whole.clone()
        };
        assert_eq!(newer.act(ours), Act::LeaveAlone);
        let older = Found {
            version: release("a:v0.15.0"),
            ..whole.clone()
        };
        assert_eq!(older.act(ours), Act::Nothing);
        let anothers = Found {
            missing: 4,
            elsewhere: Some("certs".into()),
            ..whole
        };
        assert_eq!(anothers.act(ours), Act::LeaveAlone);
    }
}
