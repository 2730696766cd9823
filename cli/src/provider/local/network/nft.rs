//! The one rule set inside the namespace: what leaves the nodes' range for anywhere else gets the
//! address of the way out. And forwarding itself.

use super::BRIDGE;
use crate::failure::{Context, Failure, Result};
use ipnet::Ipv4Net;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// nft answers in milliseconds.
const DEADLINE: Duration = Duration::from_secs(20);

/// The rule set, as `nft -f -` takes it; replaces an earlier one in one transaction.
fn rules(range: Ipv4Net) -> String {
    let range = range.trunc();
    format!(
        "table ip knest\n\
         delete table ip knest\n\
         table ip knest {{\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip saddr {range} oifname != \"{BRIDGE}\" masquerade\n\
         \t}}\n\
         }}\n"
    )
}

/// Lets the namespace forward, keeps netfilter off the bridge, and installs the rules.
pub(crate) async fn install(nft: &Path, range: Ipv4Net) -> Result<()> {
    let what = "setting forwarding up";
    fs_err::write("/proc/sys/net/ipv4/ip_forward", "1").host(what)?;
    // There only where br_netfilter is loaded; it would drag the nodes' own traffic through us.
    for family in ["iptables", "ip6tables", "arptables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        if Path::new(&path).exists() {
            fs_err::write(path, "0").host(what)?;
        }
    }
    let mut child = tokio::process::Command::new(nft)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .host("starting nft")?;
    let talk = async {
        if let Some(mut input) = child.stdin.take() {
            input.write_all(rules(range).as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let late = |_| {
        Failure::timeout(format!(
            "nft -f - gave no answer in {} s",
            DEADLINE.as_secs()
        ))
    };
    let output = tokio::time::timeout(DEADLINE, talk)
        .await
        .map_err(late)?
        .host("running nft")?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::host(format!("nft -f -: {}", output.status))
        .evidence(String::from_utf8_lossy(&output.stderr))
        .hint("the kernel needs nftables with NAT (modules nf_tables and nft_masq)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        insta::assert_snapshot!(rules("10.4.0.1/24".parse().unwrap()), @r#"
        table ip knest
        delete table ip knest
        table ip knest {
        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        		ip saddr 10.4.0.0/24 oifname != "knest0" masquerade
        	}
        }
        "#);
    }
}
