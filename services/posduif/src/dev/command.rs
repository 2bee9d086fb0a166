//! The sub-commands of `posduif dev`.

use std::{
    fs::File,
    io::Read,
    net::IpAddr,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use tokio::time::sleep;

use super::{
    banner,
    folder::{Folder, private_file},
    running::Running,
    supervisor::{self, Wishes},
};

#[derive(Args)]
pub struct DevArguments {
    /// Where everything is kept [default: a private folder of this user]
    #[arg(long, global = true, value_name = "DIR", env = "POSDUIF_DEV_DIR")]
    data_dir: Option<PathBuf>,
    /// Return when it runs; it goes on in the background
    #[arg(long)]
    detach: bool,
    /// The API's port [default: the last one, or a free one]
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// The address the API listens on; an address of the local network lets real phones reach it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    #[command(subcommand)]
    command: Option<DevCommand>,
}

#[derive(Subcommand)]
enum DevCommand {
    /// Stop what an earlier `posduif dev` started
    Stop,
    /// Stop it and remove all of its data
    Reset,
}

/// A first start fetches servers and builds the services.
const START_DEADLINE: Duration = Duration::from_secs(900);
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Runs `posduif dev` or one of its sub-commands.
pub async fn run(arguments: DevArguments) -> anyhow::Result<()> {
    let folder = Folder::choose(arguments.data_dir.clone())?;
    match arguments.command {
        Some(DevCommand::Stop) => match stop(&folder).await? {
            true => println!("Stopped."),
            false => println!("Nothing is running in {}.", folder.path().display()),
        },
        Some(DevCommand::Reset) => {
            stop(&folder).await?;
            folder.remove()?;
            println!("Removed {}.", folder.path().display());
        }
        None if arguments.detach => detach(&folder, &arguments).await?,
        None => {
            let wishes = Wishes { api_port: arguments.api_port, host: arguments.host };
            supervisor::run(&folder, wishes).await?;
        }
    }
    Ok(())
}

/// Asks the supervisor to stop and waits until it has; `false` when there is none.
async fn stop(folder: &Folder) -> anyhow::Result<bool> {
    // Whoever holds the lock wrote the file, so the process id in it cannot be another process's.
    let (false, Some(running)) = (folder.is_free()?, Running::read(folder)?) else {
        return Ok(false);
    };
    let supervisor =
        rustix::process::Pid::from_raw(running.supervisor).context("the file of the run is damaged")?;
    rustix::process::kill_process(supervisor, rustix::process::Signal::TERM)
        .with_context(|| format!("cannot signal process {}", running.supervisor))?;
    let begun = Instant::now();
    while !folder.is_free()? {
        anyhow::ensure!(
            begun.elapsed() < STOP_DEADLINE,
            "process {} did not end within {} s; its log is {}",
            running.supervisor,
            STOP_DEADLINE.as_secs(),
            folder.log("dev").display()
        );
        sleep(POLL).await;
    }
    Ok(true)
}

/// Starts the supervisor as a process of its own and waits until everything runs.
async fn detach(folder: &Folder, arguments: &DevArguments) -> anyhow::Result<()> {
    folder.create()?;
    anyhow::ensure!(folder.is_free()?, "{}", folder.busy());
    Running::forget(folder)?;
    let log = private_file(&folder.log("dev")).context("cannot write the log")?;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(["dev", "--data-dir"]).arg(folder.path()).arg("--host").arg(arguments.host.to_string());
    if let Some(port) = arguments.api_port {
        command.arg("--api-port").arg(port.to_string());
    }
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().context("cannot start the supervisor")?;
    println!("Starting; the log is {}", folder.log("dev").display());
    let mut progress = File::open(folder.log("dev")).context("cannot read the log")?;
    let begun = Instant::now();
    loop {
        let mut said = Vec::new();
        progress.read_to_end(&mut said).context("cannot read the log")?;
        if let Some(running) = Running::read(folder)? {
            banner::print(&running, folder)?;
            println!("It goes on in the background; stop it with: posduif dev stop");
            return Ok(());
        }
        // What takes long says so: servers are fetched, services are built.
        eprint!("{}", String::from_utf8_lossy(&said));
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("it did not start ({status}); the reason is above");
        }
        anyhow::ensure!(
            begun.elapsed() < START_DEADLINE,
            "it did not start within {} s; stop it with posduif dev stop",
            START_DEADLINE.as_secs()
        );
        sleep(POLL).await;
    }
}
