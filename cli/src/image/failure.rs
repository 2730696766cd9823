//! Whose turn it is when the image crate fails, and what may help.

use crate::failure::Failure;
use knest_rootfs::Error;
use knest_rootfs::source::registry::RegistryProblem;

/// A file of this machine's and a server that does not work are the host's; all else is about the
/// image that was named.
pub(crate) fn failure(error: Error) -> Failure {
    match &error {
        Error::Cancelled => Failure::interrupted(),
        Error::NoImage { .. } => {
            Failure::usage(error.to_string()).hint("see what there is: knest image list")
        }
        Error::InUse { .. } => Failure::host("the disk cache").because(error),
        Error::File { .. } => Failure::host("the image store").because(error),
        Error::TooSmall { needed, .. } => {
            let hint = format!("give it more: --size {}Mi", needed.div_ceil(1 << 20));
            Failure::usage("the image").because(error).hint(hint)
        }
        _ => match error.registry().map(RegistryProblem::cause).cloned() {
            Some(problem) => of_registry(&problem, error),
            None => Failure::usage("the image").because(error),
        },
    }
}

fn of_registry(problem: &RegistryProblem, error: Error) -> Failure {
    match problem {
        RegistryProblem::Cancelled => Failure::interrupted(),
        RegistryProblem::Unauthorized { host, known } => {
            let again = if *known { " again" } else { "" };
            Failure::usage("the image").because(error).hint(format!(
                "log in{again} with docker, podman or skopeo: skopeo login {host}"
            ))
        }
        RegistryProblem::Status {
            status: 400..=499, ..
        } => Failure::usage("the image").because(error),
        RegistryProblem::PlainHttp { host } => Failure::usage("the image")
            .because(error)
            .hint(format!("if that is right: --plain-http {host}")),
        RegistryProblem::Credentials { .. } => Failure::host("the image").because(error),
        RegistryProblem::Connection { host, reason } if reason.contains("InvalidContentType") => {
            let hint = format!("if it speaks plain HTTP: --plain-http {host}");
            Failure::host("the image").because(error).hint(hint)
        }
        _ => Failure::host("the image").because(error),
    }
}
