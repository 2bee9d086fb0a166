//! A messenger in the terminal: lines like `Bob: hello` from standard input in, conversations out.
//!
//! ```text
//! cargo run -p posduif-sdk --example messenger -- phone.sqlite [<enrolment URL> <user name>]
//! ```

use std::{collections::HashSet, error::Error, path::PathBuf, sync::Arc};

use posduif_sdk::{Device, Problem, State, Uuid};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = PathBuf::from(arguments.next().ok_or("usage: messenger FILE [URL USERNAME]")?);
    // An enrolled file needs no network to be opened: the application shows what it has.
    let device = match (arguments.next(), arguments.next()) {
        (Some(url), Some(name)) => Device::enroll(&file, &url, &name, json!({"app": "messenger"})).await?,
        _ => Device::open(&file)?,
    };
    let device = Arc::new(device);

    // One task keeps the device in step for as long as the application lives.
    let (stop, stopped) = oneshot::channel::<()>();
    let running = Arc::clone(&device);
    let connection = tokio::spawn(async move {
        let stopped = async {
            // A sender that is gone means stop, too.
            let _gone = stopped.await;
        };
        running.run(stopped).await
    });

    let mut changes = device.status();
    let mut shown = HashSet::new();
    show_new_messages(&device, &mut shown)?;
    let (typed, mut lines) = mpsc::unbounded_channel();
    // Nobody can interrupt the reading of a terminal, so it has a thread of its own.
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).try_for_each(|line| typed.send(line))
    });
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => send(&device, &line)?,
                None => break,
            },
            Some(status) = changes.next() => {
                show_new_messages(&device, &mut shown)?;
                match status.state {
                    State::Error(Problem::Unauthorized) => println!("* this phone must be enrolled again"),
                    State::Live | State::Polling => println!("* up to date, {} unsent", status.pending),
                    _ => {}
                }
                show_refused(&device)?;
            }
        }
    }
    let _already_stopped = stop.send(());
    connection.await??;
    Ok(())
}

/// Writes the message down; the connection sends it as soon as it can.
fn send(device: &Device, line: &str) -> Result<(), Box<dyn Error>> {
    let Some((name, text)) = line.split_once(": ") else {
        println!("* write NAME: TEXT");
        return Ok(());
    };
    match device.find_user(name)? {
        Some(user) => device.send_message(user.id, text).map(drop)?,
        None => println!("* nobody here is called {name}"),
    }
    Ok(())
}

fn show_new_messages(device: &Device, shown: &mut HashSet<Uuid>) -> Result<(), Box<dyn Error>> {
    for message in device.inbox()? {
        if shown.insert(message.id) {
            let text = message.content.unwrap_or_default();
            println!("{}: {}", message.sender_id, text.escape_debug());
            device.mark_read(message.id)?;
        }
    }
    Ok(())
}

/// What the server would not take is shown once and then let go.
fn show_refused(device: &Device) -> Result<(), Box<dyn Error>> {
    for write in device.rejected()? {
        println!("* not stored: {} ({}: {})", write.row.unwrap_or(write.key), write.code, write.error);
        device.dismiss_rejected(write.seq)?;
    }
    Ok(())
}
