//! `knest vm api`: any call of Cloud Hypervisor's API.

use super::{Env, Named};
use crate::failure::{Context, Failure, Result};
use crate::vm;
use knest_vmm::endpoint::ENDPOINTS;
use knest_vmm::request::{self, Method, Request};
use std::io::Read;

/// A longer body is none that Cloud Hypervisor takes.
const BODY_MAX: u64 = 4 << 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The answer, if there is one, is printed as JSON. Paths in a body are relative to \
    the VM's directory.\n\nExamples:\n  knest vm api demo GET vm.counters\n  \
    knest vm api demo PUT vm.resize '{\"desired_vcpus\": 4}'"
)]
pub(crate) struct Args {
    #[command(flatten)]
    vm: Named,
    /// GET or PUT
    method: String,
    /// The call's name, like vm.info, or its whole path
    path: String,
    /// JSON; `-` reads it from standard input
    body: Option<String>,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let call = call(&args.method, &args.path, body(args.body)?)?;
    let dir = vm::existing(&env.paths, &args.vm.name)?;
    let open = vm::open(&dir).await?;
    let answer = open.vm.call(&call).await.map_err(vm::failure)?;
    if answer.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice(&answer) {
        Ok(value) => env.printer.json(&value),
        Err(_) => env
            .printer
            .answer(&format!("{}\n", String::from_utf8_lossy(&answer))),
    }
}

fn body(given: Option<String>) -> Result<Option<Vec<u8>>> {
    let text = match given {
        Some(dash) if dash == "-" => {
            let mut text = String::new();
            let mut input = std::io::stdin().lock().take(BODY_MAX);
            input.read_to_string(&mut text).host("reading the body")?;
            text
        }
        Some(text) => text,
        None => return Ok(None),
    };
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(_) => Ok(Some(text.into_bytes())),
        Err(error) => Err(Failure::usage("the body is not JSON").because(error)),
    }
}

fn call(method: &str, path: &str, body: Option<Vec<u8>>) -> Result<Request> {
    let call = request::raw(path, body).ok_or_else(|| {
        let names: Vec<&str> = ENDPOINTS.iter().map(|known| known.name).collect();
        Failure::usage(format!("Cloud Hypervisor has no call {path:?}"))
            .hint(format!("it has: {}", names.join(", ")))
    })?;
    let right = match call.method {
        Method::Get => "GET",
        Method::Put => "PUT",
    };
    match method.eq_ignore_ascii_case(right) {
        true => Ok(call),
        false => Err(Failure::usage(format!(
            "{} is called with {right}",
            call.name
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        assert_eq!(call("get", "vm.info", None).unwrap().name, "vm.info");
        let put = call("PUT", "/api/v1/vm.resize", Some(b"{}".to_vec())).unwrap();
        assert_eq!(put.path(), "/api/v1/vm.resize");
        for (method, path) in [("POST", "vm.info"), ("GET", "vm.boot"), ("GET", "vm.nope")] {
            assert!(call(method, path, None).is_err(), "{method} {path}");
        }
        assert!(body(Some("{".into())).is_err());
        assert!(body(None).unwrap().is_none());
    }
}
