//! `baton demo --hold`: the pair stays up for somebody to play with.

use std::process;
use std::time::Duration;

use crate::drill::Halt;
use crate::drill::engine::Engine;
use crate::drill::rehearsal::Rehearsal;
use crate::lab::LabError;
use crate::lab::namespace::Entered;
use crate::lab::pair::{Pair, VIP};

/// Time for a node to say which processes it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts the pair, says how to reach it, and keeps it up until a signal comes.
///
/// # Errors
/// [`Halt::Interrupted`] is its only good end.
pub(super) fn hold(engine: &mut Engine<'_, Rehearsal>, entered: Entered) -> Result<(), Halt> {
    let active = super::start(engine)?;
    engine.spectator.say(&format!("{active} is active and serves"));
    // Other terminals find a network namespace through a process in it. This is the process whose number we can
    // tell them, and its first thread is the one that counts.
    let client = engine.site.pair.client()?.clone();
    client.enter_this_thread().map_err(LabError::system("enter the client's namespace"))?;
    let told = super::super::answer(&instructions(&engine.site.pair, entered)?);
    told.map_err(LabError::system::<std::io::Error>("print how to reach the pair"))?;
    engine.begin("holding");
    loop {
        engine.pause()?;
        for (name, status) in engine.site.pair.restart_what_ended()? {
            engine
                .spectator
                .say(&format!("the guard of {name} ended ({status}); started it again, as a service manager would"));
        }
    }
}

fn instructions(pair: &Pair, entered: Entered) -> Result<String, LabError> {
    let mut text = format!(
        "\nThe pair is up. From another terminal, as the same user, reach its virtual address with\n\n  {}\n\n\
         The nodes:\n\n",
        command_inside(process::id(), entered, &format!("curl -i http://{VIP}/"))
    );
    for node in pair.nodes() {
        let status = node.status(STATUS_TIMEOUT)?;
        let role = status.vips.first().map_or_else(String::new, |vip| vip.role.to_string());
        let worker = status.worker.pid.map_or_else(|| "none".to_owned(), |pid| pid.to_string());
        let (name, guard) = (node.name(), status.guard_pid);
        text.push_str(&format!("  {name}  {role:<8} guard {guard}, worker {worker}, log {}\n", node.log().display()));
    }
    text.push_str("\nKill what you like with `kill -9`, and see the address move here. Ctrl-C ends it all.\n\n");
    Ok(text)
}

/// The command that runs `command` in the namespaces of the process `pid`.
fn command_inside(pid: u32, entered: Entered, command: &str) -> String {
    match entered {
        Entered::AsRoot => format!("nsenter --target {pid} --net {command}"),
        // Without --preserve-credentials nsenter calls setgroups, which the user namespace forbids.
        Entered::InUserNamespace => format!("nsenter --target {pid} --user --net --preserve-credentials {command}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_terminal_needs_the_user_namespace_only_when_there_is_one() {
        assert_eq!(command_inside(7, Entered::AsRoot, "curl x"), "nsenter --target 7 --net curl x");
        assert_eq!(
            command_inside(7, Entered::InUserNamespace, "curl x"),
            "nsenter --target 7 --user --net --preserve-credentials curl x"
        );
    }
}
