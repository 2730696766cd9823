//! `knest vm run`.

use super::{Env, console, logs, stop};
use crate::cluster::address;
use crate::cluster::name::VmName;
use crate::cluster::quantity::Quantity;
use crate::cluster::references;
use crate::cluster::spec::check_reference;
use crate::command::image;
use crate::failure::{Failure, Result};
use crate::provider::local::Local;
use crate::provider::local::network::find_pasta;
use crate::vm::{self, DiskArg, Left, NetArg, NetSpec, Plan, ShareArg, VmDir, VmLock, VmSpec};
use crate::{interrupt, ui};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// Kernel messages on both; the last is /dev/console, where a guest's first program speaks and is
/// spoken to.
const COMMAND_LINE: &str = "console=ttyS0 console=hvc0 root=/dev/vda rw";
/// Less holds no guest at all.
const MEMORY_MIN: Quantity = Quantity::mib(32);
/// What a guest can be given at once (Cloud Hypervisor, ACPI hot-plug).
const MEMORY_STEP: Quantity = Quantity::mib(128);
/// So that the end of a log can be shown.
const LOG_MIN: Quantity = Quantity::of(256 << 10);
/// How long a guest may take that is stopped because its `run` was interrupted.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "IMAGE is a name in the store (knest image list), or in a registry, from where it is \
    pulled once; DISK is a path, with a slash in \
    it, of a raw or qcow2 file, which the VM writes to.\n\nttyS0 is the log (knest vm logs), hvc0 the \
    console (knest vm console). On a terminal the console is joined at once; elsewhere the log is \
    printed until the VM ends, and Ctrl-C stops it.\n\nExamples:\n  knest vm run knest.dev/node:v1.37.2 \
    --rm\n  knest vm run ./debian.qcow2 --cmdline 'console=hvc0 root=/dev/vda1' --net user --detach"
)]
pub(crate) struct Args {
    /// What it boots from: an image, or a disk by its path
    #[arg(value_name = "IMAGE|DISK", required_unless_present = "kernel")]
    source: Option<String>,
    /// A kernel: vmlinux with a PVH entry, bzImage, or firmware [default: knest's]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Where knest's kernel is named: REPOSITORY/kernel:latest
    #[arg(
        long,
        value_name = "REPOSITORY",
        env = "KNEST_IMAGE_REPOSITORY",
        default_value = references::REPOSITORY
    )]
    image_repository: String,
    /// The kernel's initial file system
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initramfs: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = COMMAND_LINE)]
    cmdline: String,
    /// Virtual CPUs
    #[arg(long, default_value_t = 2, value_name = "N")]
    cpus: u32,
    /// How many it may be given while it runs [default: --cpus]
    #[arg(long, value_name = "N")]
    max_cpus: Option<u32>,
    /// Memory
    #[arg(long, default_value_t = Quantity::gib(1), value_name = "QUANTITY")]
    memory: Quantity,
    /// How much it may be given while it runs, in steps of 128Mi [default: --memory]
    #[arg(long, value_name = "QUANTITY")]
    max_memory: Option<Quantity>,
    /// Size of the root disk that is made of IMAGE
    #[arg(long, default_value_t = Quantity::gib(8), value_name = "QUANTITY")]
    root_size: Quantity,
    /// A further disk, raw or qcow2; may be repeated
    #[arg(long, value_name = "FILE[,ro]")]
    disk: Vec<DiskArg>,
    /// A TAP that is there, or a network of its own with a way out [default: none]
    #[arg(long, value_name = "tap=NAME[,mac=MAC]|user")]
    net: Option<NetArg>,
    /// Share a directory over virtio-fs; may be repeated
    #[arg(long, value_name = "HOST:TAG[:ro]")]
    share: Vec<ShareArg>,
    /// User-data for cloud-init
    #[arg(long, value_name = "FILE")]
    cloud_init: Option<PathBuf>,
    /// Join the console [default on a terminal]
    #[arg(long, conflicts_with = "detach")]
    console: bool,
    /// Return as soon as it runs, and print its name
    #[arg(short, long)]
    detach: bool,
    /// Its name [default: from IMAGE or DISK]
    #[arg(long)]
    name: Option<VmName>,
    /// Remove it with all that belongs to it when it ends
    #[arg(long)]
    rm: bool,
    /// How much of its serial log is kept
    #[arg(long, default_value_t = Quantity::mib(16), value_name = "QUANTITY")]
    log_size: Quantity,
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    let cancel = interrupt::token()?;
    let dir = VmDir::of(&env.paths, &args.name()?);
    let plan = args.plan(&dir.name, env)?;
    image::fetch_missing(plan.images(), env).await?;
    vm::check(&env.paths, &plan).await?;
    if let Some(note) = note(&plan.spec) {
        env.printer.note(note);
    }
    let lock = VmLock::acquire(&dir)?;
    vm::reclaim(&dir)?;
    let reporter = ui::reporter(env.printer.output, env.printer.quiet);
    let made = async {
        vm::make(&env.paths, &dir, plan, reporter.as_ref()).await?;
        vm::start(&dir).await
    };
    let made = tokio::select! {
        made = made => made,
        () = cancel.cancelled() => Err(Failure::interrupted()),
    };
    if let Err(failure) = made {
        // What never ran leaves nothing.
        vm::discard(&dir).await?;
        return Err(failure);
    }
    if args.detach {
        return env.printer.answer(&format!("{}\n", dir.name));
    }
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let seen = if args.console || terminal {
        if console::join(&dir, env).await? == Left::Escaped {
            return Ok(());
        }
        Ok(())
    } else {
        follow(&dir, &cancel).await
    };
    // Read before the lock is let go: with --rm it is gone then.
    let judged = match seen {
        Ok(()) => vm::when_ended(&dir).await?.judge(&dir),
        Err(failure) => Err(failure),
    };
    drop(lock);
    vm::cleared(&dir, args.rm).await;
    judged
}

/// Prints the log until the VM ends, by itself or because the user interrupts.
async fn follow(dir: &VmDir, cancel: &CancellationToken) -> Result<()> {
    let interrupted = tokio::select! {
        printed = logs::print(dir, true) => return printed,
        () = cancel.cancelled() => Failure::interrupted(),
    };
    stop::stop(dir, Some(PATIENCE)).await?;
    Err(interrupted)
}

fn note(spec: &VmSpec) -> Option<&'static str> {
    let user = matches!(spec.net, Some(NetSpec::User { .. }));
    (user && find_pasta().is_none()).then_some(
        "note: pasta is not installed, so the VM reaches nothing outside (package passt)",
    )
}

/// What was named: a path has a slash in it, which a store's name may have too, but not at its
/// beginning, and not as an existing file.
fn is_disk(source: &str) -> bool {
    let path = Path::new(source);
    path.is_absolute() || source.starts_with("./") || source.starts_with("../") || path.is_file()
}

impl Args {
    /// The name that was given, or one after what it boots.
    fn name(&self) -> Result<VmName> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let kernel = self.kernel.as_ref().map(|path| path.display().to_string());
        let source = self.source.clone().or(kernel).unwrap_or_default();
        let base = source.rsplit('/').next().unwrap_or_default();
        let stem: String = base
            .to_ascii_lowercase()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(24)
            .collect();
        let stem = stem.trim_matches('-');
        let stem = match stem.starts_with(|c: char| c.is_ascii_lowercase()) {
            true => stem,
            false => "vm",
        };
        let name = format!("{stem}-{:04x}", rand::random::<u16>());
        name.parse()
            .map_err(|e| Failure::internal("making a name up").because(e))
    }

    /// The flags, and the files that they name.
    fn plan(&self, name: &VmName, env: &Env) -> Result<Plan> {
        self.check_sizes()?;
        let kernel = self.kernel.as_deref();
        let kernel = kernel
            .map(|path| vm::readable("the kernel", path))
            .transpose()?;
        let initramfs = self.initramfs.as_deref();
        let initramfs = initramfs
            .map(|path| vm::readable("the initramfs", path))
            .transpose()?;
        let mut disks = vec![];
        let mut image = None;
        match &self.source {
            Some(source) if is_disk(source) => {
                disks.push(DiskArg::writable(Path::new(source)).resolve()?);
            }
            Some(source) => {
                check_reference(source)?;
                image = Some((source.clone(), self.root_size.bytes()));
            }
            None => {}
        }
        for disk in &self.disk {
            disks.push(disk.resolve()?);
        }
        let shares = self.share.iter().map(ShareArg::resolve);
        let spec = VmSpec {
            version: vm::VERSION,
            name: name.clone(),
            created: OffsetDateTime::now_utc(),
            source: self.source.clone(),
            kernel: kernel.unwrap_or_default(),
            initramfs,
            cmdline: self.cmdline.clone(),
            cpus: self.cpus,
            max_cpus: self.max_cpus,
            memory: self.memory.bytes(),
            max_memory: self.max_memory.map(Quantity::bytes),
            disks,
            net: self.net(env)?,
            shares: shares.collect::<Result<_>>()?,
            log_size: self.log_size.bytes(),
            remove: self.rm,
        };
        let user_data = self.cloud_init.as_deref().map(vm::user_data).transpose()?;
        Ok(Plan {
            spec,
            kernel_image: references::kernel(&self.image_repository),
            image,
            user_data,
        })
    }

    fn check_sizes(&self) -> Result<()> {
        let most = self.max_cpus.unwrap_or(self.cpus);
        for count in [self.cpus, most] {
            if !(1..=254).contains(&count) {
                let text = format!("a VM has 1 to 254 CPUs, not {count}");
                return Err(Failure::usage(text));
            }
        }
        if most < self.cpus {
            let text = format!("--max-cpus {most} is less than --cpus {}", self.cpus);
            return Err(Failure::usage(text));
        }
        self.check_room()?;
        for (what, size, least) in [
            ("memory", self.memory, MEMORY_MIN),
            ("log", self.log_size, LOG_MIN),
        ] {
            if size < least {
                return Err(Failure::usage(format!(
                    "{size} of {what} is too little: at least {least}"
                )));
            }
        }
        Ok(())
    }

    fn check_room(&self) -> Result<()> {
        let Some(most) = self.max_memory else {
            return Ok(());
        };
        let memory = self.memory;
        let refused = match most.bytes().checked_sub(memory.bytes()) {
            None => format!("--max-memory {most} is less than --memory {memory}"),
            Some(room) if !room.is_multiple_of(MEMORY_STEP.bytes()) => format!(
                "--max-memory {most} is not --memory {memory} and a multiple of {MEMORY_STEP}"
            ),
            Some(_) => return Ok(()),
        };
        Err(Failure::usage(refused))
    }

    fn net(&self, env: &Env) -> Result<Option<NetSpec>> {
        Ok(match &self.net {
            None => None,
            Some(NetArg::User) => {
                let range = Local::new(&env.paths).free_node_cidr(&[])?;
                let address = address::allocate(range, [])?;
                Some(NetSpec::User {
                    range,
                    address,
                    mac: address::mac_for(address),
                })
            }
            Some(NetArg::Tap { tap, mac }) => {
                // Asked for one that is not there, Cloud Hypervisor makes its own and says nothing.
                if !Path::new("/sys/class/net")
                    .join(tap)
                    .join("tun_flags")
                    .exists()
                {
                    return Err(
                        Failure::usage(format!("there is no TAP {tap}")).hint(format!(
                            "make it: sudo ip tuntap add {tap} mode tap vnet_hdr user $USER"
                        )),
                    );
                }
                let mac = mac.clone().unwrap_or_else(random_mac);
                Some(NetSpec::Tap {
                    tap: tap.clone(),
                    mac,
                })
            }
        })
    }
}

/// Of the range that is everybody's, and of a single machine's.
fn random_mac() -> String {
    let octets: [u8; 5] = rand::random();
    let octets: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("02:{}", octets.join(":"))
}
