//! `knest vm events`.

use super::{Env, Named, stream};
use crate::failure::{Context, Result};
use crate::ui::Output;
use crate::vm;
use knest_vmm::event::{Event, EventLog};
use serde_json::json;
use std::time::Duration;

const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "One line an event: seconds since Cloud Hypervisor started, the event, what it \
    says besides; with -o json one object a line."
)]
pub(crate) struct Args {
    #[command(flatten)]
    vm: Named,
    /// Go on with what is reported from now on, until the VM ends
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let dir = vm::existing(&env.paths, &args.vm.name)?;
    let mut log = EventLog::new(dir.events());
    loop {
        // Looked at first: what was reported before the end is read after it.
        let running = args.follow && !vm::has_ended(&dir)?;
        let mut text = String::new();
        for event in log.read().host("reading the events")? {
            text.push_str(&line(&event, env.printer.output));
        }
        if !stream(text.as_bytes())? || !running {
            return Ok(());
        }
        vm::keep_supervised(&dir).await;
        tokio::time::sleep(POLL).await;
    }
}

fn line(event: &Event, output: Output) -> String {
    let (at, name, properties) = (event.at, event.kind.name(), event.kind.properties());
    match output {
        Output::Json => {
            let seconds = at.as_secs_f64();
            format!(
                "{}\n",
                json!({"seconds": seconds, "event": name, "properties": properties})
            )
        }
        Output::Table => {
            let mut line = format!("{:>10.3}  {name}", at.as_secs_f64());
            for (name, value) in properties {
                // It may be the guest's word.
                line.push_str(&format!(" {name}={}", value.escape_debug()));
            }
            line.push('\n');
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use knest_vmm::event::EventKind;

    #[test]
    fn lines() {
        let event = Event {
            at: Duration::from_millis(1234),
            kind: EventKind::GuestPanic {
                event: "panic\n".into(),
            },
        };
        assert_eq!(
            line(&event, Output::Table),
            "     1.234  panic event=panic\\n\n"
        );
        assert_eq!(
            line(&event, Output::Json),
            "{\"event\":\"panic\",\"properties\":{\"event\":\"panic\\n\"},\"seconds\":1.234}\n"
        );
    }
}
