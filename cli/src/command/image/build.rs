//! `knest image build`: by the engine that the user has, into knest's store.

use super::{Env, load, store};
use crate::cluster::spec;
use crate::failure::{Context, Failure, Result};
use crate::paths::find_program;
use crate::ui::Reporter;
use crate::{interrupt, ui};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

/// How long an engine may take to say that it is there.
const ANSWER: Duration = Duration::from_secs(20);
/// Lines of the log that an error repeats.
const LAST: usize = 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "An engine counts when it answers, not when it is installed; docker is asked \
    first, then podman, then buildah.\n\nExamples:\n  \
    knest image build -t my-node:v1 --build-arg KUBERNETES_VERSION=v1.36.3 images/node"
)]
pub(crate) struct Args {
    /// The directory that the Dockerfile copies from
    context: PathBuf,
    /// The Dockerfile [default: Dockerfile or Containerfile in the context]
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// The image's name in the store
    #[arg(short, long)]
    tag: String,
    /// A value for an ARG of the Dockerfile
    #[arg(long, value_name = "NAME=VALUE")]
    build_arg: Vec<String>,
    /// The engine [default: the first that answers]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    Docker,
    Podman,
    Buildah,
}

impl Engine {
    const ALL: [Self; 3] = [Self::Docker, Self::Podman, Self::Buildah];

    fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Buildah => "buildah",
        }
    }

    /// What only an engine that works answers.
    fn probe(self) -> &'static [&'static str] {
        match self {
            // The client alone answers `version` too, but not with success.
            Self::Docker => &["version"],
            Self::Podman | Self::Buildah => &["info"],
        }
    }

    fn build(self) -> &'static [&'static str] {
        match self {
            Self::Docker | Self::Podman => &["build"],
            // Works in containers and without a runtime, and keeps layers for the next build.
            Self::Buildah => &["build", "--isolation", "chroot", "--layers"],
        }
    }

    /// Writes the image of that name into an archive.
    fn save(self, name: &str, archive: &Path) -> Vec<OsString> {
        let words: &[&str] = match self {
            Self::Docker => &["save", "--output"],
            Self::Podman => &["save", "--format", "oci-archive", "--output"],
            Self::Buildah => {
                let mut to = OsString::from("oci-archive:");
                to.push(archive);
                return vec!["push".into(), name.into(), to];
            }
        };
        let words = words.iter().map(OsString::from);
        words.chain([archive.into(), name.into()]).collect()
    }
}

pub(super) async fn run(args: Args, env: &Env) -> Result<()> {
    spec::check_reference(&args.tag)?;
    let context = args.context.as_path();
    if !context.is_dir() {
        return Err(Failure::usage(format!(
            "{} is no directory",
            context.display()
        )));
    }
    let file = dockerfile(&args)?;
    // Before minutes of building: it must be there to be written into.
    drop(store(env)?);
    let (engine, program) = find(args.engine).await?;
    let cancel = interrupt::token()?;
    fs_err::create_dir_all(&env.paths.cache).host("making knest's cache")?;
    let scratch = tempfile::Builder::new()
        .prefix("build-")
        .tempdir_in(&env.paths.cache);
    let scratch = scratch.host("making a directory for the image")?;
    let archive = scratch.path().join("image.tar");
    let title = format!("Building {} with {}", args.tag, engine.name());
    let reporter = ui::reporter(env.printer.output, env.printer.quiet);
    // A name of our own: the user's may mean something to the engine already.
    let name = format!("localhost/knest-build:{}", std::process::id());
    let build = async {
        let mut words: Vec<OsString> = engine.build().iter().map(OsString::from).collect();
        words.extend([
            "--file".into(),
            file.into(),
            "--tag".into(),
            name.clone().into(),
        ]);
        for value in &args.build_arg {
            words.extend(["--build-arg".into(), value.into()]);
        }
        words.push(context.into());
        let built = follow(&program, &words, reporter.as_ref()).await;
        let saved = match built {
            Ok(()) => follow(&program, &engine.save(&name, &archive), reporter.as_ref()).await,
            failed => failed,
        };
        // The engine's layers stay its cache; the name was ours.
        let nobody = ui::reporter(env.printer.output, true);
        let forgotten = [OsString::from("rmi"), name.clone().into()];
        drop(follow(&program, &forgotten, nobody.as_ref()).await);
        saved
    };
    let work = async {
        tokio::select! {
            done = build => done,
            () = cancel.cancelled() => Err(Failure::interrupted()),
        }
    };
    ui::step(reporter.as_ref(), &title, work).await?;
    let place = archive.display().to_string();
    load::load(place, Some(args.tag), None, env).await
}

fn dockerfile(args: &Args) -> Result<PathBuf> {
    let given = args.file.clone();
    let usual = ["Dockerfile", "Containerfile"].map(|name| args.context.join(name));
    let found = given.or_else(|| usual.into_iter().find(|path| path.is_file()));
    match found {
        Some(path) if path.is_file() => Ok(path),
        Some(path) => Err(Failure::usage(format!(
            "there is no file {}",
            path.display()
        ))),
        None => Err(Failure::usage(format!(
            "{} has neither Dockerfile nor Containerfile",
            args.context.display()
        ))
        .hint("name it: --file FILE")),
    }
}

/// The first engine that answers, of all or the one that was named.
async fn find(wanted: Option<Engine>) -> Result<(Engine, PathBuf)> {
    let mut failure = Failure::host(match wanted {
        Some(engine) => format!("{} does not answer", engine.name()),
        None => "no container engine answers".into(),
    });
    for engine in Engine::ALL {
        if wanted.is_some_and(|wanted| wanted != engine) {
            continue;
        }
        let name = engine.name();
        let Some(program) = find_program(name, None, None) else {
            failure = failure.evidence(format!("{name}: not installed"));
            continue;
        };
        let mut command = Command::new(&program);
        command
            .args(engine.probe())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        match tokio::time::timeout(ANSWER, command.output()).await {
            Ok(Ok(output)) if output.status.success() => return Ok((engine, program)),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.trim().lines().last().unwrap_or("no reason given");
                failure = failure.evidence(format!("{name}: {last}"));
            }
            Ok(Err(error)) => failure = failure.evidence(format!("{name}: {error}")),
            Err(_) => {
                let seconds = ANSWER.as_secs();
                failure = failure.evidence(format!("{name}: no answer within {seconds} s"));
            }
        }
    }
    Err(failure.hint("install docker, podman or buildah, and see that its `info` works"))
}

/// Runs the engine and passes its words on; a failure repeats the last of them.
async fn follow(program: &Path, words: &[OsString], reporter: &dyn Reporter) -> Result<()> {
    let what = format!(
        "{} {}",
        program.display(),
        words
            .first()
            .map(|word| word.to_string_lossy())
            .unwrap_or_default()
    );
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .host(&what)?;
    let (tell, mut told) = mpsc::channel(64);
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(lines(stdout, tell.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(lines(stderr, tell));
    }
    let mut last = VecDeque::new();
    while let Some(line) = told.recv().await {
        reporter.log(&line);
        if last.len() == LAST {
            last.pop_front();
        }
        last.push_back(line);
    }
    let status = child.wait().await.host(&what)?;
    if status.success() {
        return Ok(());
    }
    let last: Vec<String> = last.into();
    Err(Failure::host(format!("{what} failed: {status}")).evidence(last.join("\n")))
}

/// Sends a stream's lines, without what would command a terminal.
async fn lines(stream: impl AsyncRead + Unpin, to: mpsc::Sender<String>) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while stream
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|read| read > 0)
    {
        let text = String::from_utf8_lossy(&line);
        let text: String = text
            .trim_end()
            .chars()
            .filter(|c| !c.is_control())
            .collect();
        if to.send(text).await.is_err() {
            return;
        }
        line.clear();
    }
}
