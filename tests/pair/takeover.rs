//! `baton reload` where the program has to be started anew in its process: for a configuration that it cannot change over
//! to, and for another program. Clients notice nothing of it, and neither does the peer.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use baton::lab::load::{Load, LoadSpec};
use baton::lab::pair::{SERVERS, TARGET, VIP};
use baton::lab::process::Process;
use baton::status::Role;
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, until};

/// Time for the clients to have met everything after the last takeover.
const QUIET: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    let plan = || Plan::usual().patient();
    let witnessed = |scene: &mut Scene| {
        let (active, standby) = scene.form()?;
        unnoticed(scene, active, standby, |scene| threads(scene, active, 2))
    };
    vec![
        plan().trial("takeover_of_the_active_node_is_noticed_by_nobody", |scene| {
            let (active, standby) = scene.form()?;
            unnoticed(scene, active, standby, |scene| {
                threads(scene, active, 4)?;
                other_keys(scene, active)
            })
        }),
        plan().trial("takeover_of_the_standby_is_noticed_by_nobody", |scene| {
            let (active, standby) = scene.form()?;
            unnoticed(scene, active, standby, |scene| threads(scene, standby, 3))
        }),
        Plan::every_ms(20).patient().trial("takeover_takes_longer_than_the_peer_waits", witnessed),
        Plan::usual().patient().keyless().trial("takeover_without_a_link_is_noticed_by_nobody", witnessed),
        plan()
            .edit("[pair]", format!("[pair]\nwitness = \"{WITNESS}\""))
            .trial("takeover_with_a_witness_is_noticed_by_nobody", with_a_witness),
        // The right to the VIP that the witness grants otherwise is over before any program is there.
        Plan::every_ms(30)
            .patient()
            .edit("[pair]", format!("[pair]\nwitness = \"{WITNESS}\""))
            .trial("takeover_with_a_witness_takes_longer_than_the_peer_waits", with_a_witness),
        plan().with_own_program().trial("replaced_program_takes_over", |scene| {
            let (active, standby) = scene.form()?;
            unnoticed(scene, active, standby, |scene| replaced(scene, active))
        }),
        plan().with_own_program().trial("program_that_cannot_take_over_is_refused", refused),
        plan().trial("vip_that_is_another_one_is_given_up", other_vip),
        plan().trial("worker_that_dies_before_it_takes_over_is_replaced", killed),
    ]
}

/// Where a witness is: on the machine of a server.
const WITNESS: &str = "10.77.0.21:7948";

/// The right to the VIP is made to last until the new program is there, which has it renewed as the one before did.
fn with_a_witness(scene: &mut Scene) -> Outcome {
    let mut command = scene.pair.topology().host(SERVERS[0])?.command(crate::scene::program());
    command.args(["witness", "--listen", WITNESS, "--key-file"]).arg(scene.pair.directory().join("pair.key"));
    let log = scene.pair.directory().join("witness.log");
    scene.logs.push(log.clone());
    let _witness = Process::spawn("witness", command, &log)?;
    let (active, standby) = scene.form()?;
    let answers = |node: &str| anyhow::Ok(scene.status(node)?.witness.context("a witness")?.answers);
    for node in [active, standby] {
        until("the witness to answer", PATIENCE, || Ok((answers(node)? > 0).then_some(())))?;
    }
    unnoticed(scene, active, standby, |scene| {
        threads(scene, active, 1)?;
        take_over(scene, standby)?;
        let renewed = answers(active)? + 20;
        until("the lease to be renewed many times", PATIENCE, || Ok((answers(active)? >= renewed).then_some(())))?;
        Ok(())
    })
}

/// What `baton reload` says, and whether it was done.
fn reload(scene: &Scene, node: &str) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new(crate::scene::program());
    let output = command.arg("reload").arg("--runtime-dir").arg(scene.node(node).runtime_dir()).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.success(), text(&output.stdout) + &text(&output.stderr)))
}

/// Has a node taken over, and looks at its processes.
fn take_over(scene: &Scene, node: &str) -> anyhow::Result<String> {
    let before = scene.status(node)?;
    let (is_done, said) = reload(scene, node)?;
    ensure!(is_done && said.contains("a new worker serves"), "{said}");
    let after = scene.status(node)?;
    ensure!(after.takeovers == before.takeovers + 1 && !after.is_taking_over, "{} takeovers", after.takeovers);
    ensure!(after.guard_pid == before.guard_pid, "another guard");
    ensure!(after.worker.pid != before.worker.pid && after.worker.state == "running", "{:?}", after.worker);
    Ok(said)
}

fn threads(scene: &Scene, node: &str, times: usize) -> Outcome {
    let mut before = "[worker]".to_owned();
    for threads in [3, 1, 2, 4].iter().cycle().take(times) {
        let after = format!("[worker]\nthreads = {threads}");
        scene.edit_config(&before, &after)?;
        let said = take_over(scene, node)?;
        ensure!(said.contains("worker.threads has changed"), "{said}");
        ensure!(scene.status(node)?.worker.threads == *threads, "another number of threads");
        before = after;
    }
    Ok(())
}

/// Keys of the heartbeat and of the guard itself.
fn other_keys(scene: &Scene, node: &str) -> Outcome {
    scene.edit_config("\"10.77.0.100/24\"", "\"10.77.0.100/24\", \"10.77.0.101/24\"")?;
    take_over(scene, node)?;
    let added = std::net::Ipv4Addr::new(10, 77, 0, 101);
    until("the further address to be there", PATIENCE, || {
        Ok(scene.pair.topology().carries(node, added)?.then_some(()))
    })?;
    scene.edit_config("advert_interval = \"100ms\"", "advert_interval = \"70ms\"")?;
    take_over(scene, node)?;
    ensure!(scene.vip(node)?.advert_interval_ms == 70, "another interval");
    scene.edit_config("\"10.77.0.100/24\", \"10.77.0.101/24\"", "\"10.77.0.100/24\"")?;
    scene.edit_config("[pair]", "[admin]\nbind = \"127.0.0.1:9909\"\n\n[pair]")?;
    take_over(scene, node)?;
    ensure!(!scene.pair.topology().carries(node, added)?, "the address that is configured no more is still there");
    Ok(())
}

/// Under load, and with both nodes watched: nothing fails, nobody is moved, and no role changes.
fn unnoticed(scene: &Scene, active: &str, standby: &str, act: impl FnOnce(&Scene) -> Outcome) -> Outcome {
    let before = [scene.vip(active)?, scene.vip(standby)?];
    let servers = SERVERS.iter().map(|name| (*name).to_owned()).collect();
    // Whoever is late on a busy machine has not failed.
    let spec = LoadSpec {
        probe_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        answer_timeout: PATIENCE,
        ..LoadSpec::steady(TARGET, servers)
    };
    let load = Load::start(scene.pair.client()?, spec)?;
    until("the clients to be at work", PATIENCE, || Ok(load.is_quiet(Duration::from_millis(500)).then_some(())))?;
    let begun = Instant::now();
    act(scene)?;
    let acted = Instant::now();
    until("the clients to go on", PATIENCE, || {
        let is_enough = load.window(begun, Instant::now()).answered > 500;
        Ok((is_enough && acted.elapsed() > QUIET && load.is_quiet(QUIET)).then_some(()))
    })?;
    let window = load.window(begun, Instant::now());
    ensure!(window.failed.total() == 0 && window.failed.reconnects == 0, "{window:?}");
    ensure!(window.connections_broken == 0 && window.users_moved == 0 && window.complete, "{window:?}");
    let after = [scene.vip(active)?, scene.vip(standby)?];
    for (before, after) in before.iter().zip(&after) {
        ensure!(after.role == before.role && after.transitions == before.transitions, "{before:?}, then {after:?}");
        // A standby's guard knows none before the first change; its successor knows the heartbeat's.
        let is_same = before.epoch == 0 || after.epoch == before.epoch;
        ensure!(is_same, "the epoch was {}, and is {}", before.epoch, after.epoch);
        ensure!(after.since_ms > before.since_ms, "since {} ms, after {}", after.since_ms, before.since_ms);
        // The last word of one program may come after the first of the next, on another path.
        let is_late = after.adverts_dropped.keys().all(|reason| reason == "replayed");
        ensure!(is_late, "adverts were refused: {:?}", after.adverts_dropped);
    }
    ensure!(scene.holders()? == [active], "{:?}", scene.holders()?);
    Ok(())
}

/// Writes a program.
type Write = fn(&Path) -> Outcome;

/// Puts something in the place of the program, as a package manager does.
fn replace(program: &Path, write: impl FnOnce(&Path) -> Outcome) -> Outcome {
    let new = program.with_extension("new");
    write(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(new, program)?)
}

fn copy_of_ours(to: &Path) -> Outcome {
    fs::copy(crate::scene::program(), to)?;
    Ok(())
}

fn own_program(scene: &Scene) -> anyhow::Result<PathBuf> {
    scene.program.clone().context("this scene has a program of its own")
}

fn replaced(scene: &Scene, node: &str) -> Outcome {
    let program = own_program(scene)?;
    replace(&program, copy_of_ours)?;
    take_over(scene, node)?;
    let guard = scene.status(node)?.guard_pid;
    let runs = fs::canonicalize(format!("/proc/{guard}/exe"))?;
    ensure!(runs == fs::canonicalize(&program)?, "it runs {}", runs.display());
    let (is_done, said) = reload(scene, node)?;
    ensure!(is_done && said == "nothing has changed\n", "{said}");
    Ok(())
}

fn refused(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    let program = own_program(scene)?;
    let before = scene.status(active)?;
    unnoticed(scene, active, standby, |scene| {
        let programs: [(&str, Write); 3] = [
            ("no such thing", |to| Ok(fs::write(to, "#!/bin/sh\necho no such thing >&2\nexit 3\n")?)),
            ("is no baton", |to| Ok(fs::write(to, "#!/bin/sh\necho fine\n")?)),
            ("cannot be started", |to| Ok(fs::write(to, &fs::read(crate::scene::program())?[..100])?)),
        ];
        for (reason, write) in programs {
            replace(&program, write)?;
            let (is_done, said) = reload(scene, active)?;
            ensure!(!is_done && said.contains(reason) && said.contains(&program.display().to_string()), "{said}");
        }
        replace(&program, copy_of_ours)?;
        scene.edit_config("[worker]", "[worker]\nthreads = 0")?;
        let (is_done, said) = reload(scene, active)?;
        ensure!(!is_done && said.contains("threads"), "{said}");
        scene.edit_config("[worker]\nthreads = 0", "[worker]")
    })?;
    let after = scene.status(active)?;
    ensure!((after.takeovers, after.worker.pid) == (0, before.worker.pid), "something was taken over: {after:?}");
    take_over(scene, active)?;
    Ok(())
}

/// Another virtual router: the old one is given up as at a stop, the new one begins as at a start.
fn other_vip(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    scene.edit_config("virtual_router_id = 51", "virtual_router_id = 52")?;
    take_over(scene, active)?;
    scene.wait_for_role(standby, Role::Active, PATIENCE)?;
    ensure!(scene.vip(standby)?.reason == "peer resigned", "{}", scene.vip(standby)?.reason);
    Ok(())
}

/// The worker that is to take over is killed: the one before serves until the next one does.
fn killed(scene: &mut Scene) -> Outcome {
    let (active, standby) = scene.form()?;
    unnoticed(scene, active, standby, |scene| {
        scene.edit_config("[worker]", "[worker]\nthreads = 3")?;
        let before = scene.status(active)?.worker.pid;
        let mut command = Command::new(crate::scene::program());
        let mut reload = command.arg("reload").arg("--runtime-dir").arg(scene.node(active).runtime_dir()).spawn()?;
        let new = until("another worker to be started", PATIENCE, || {
            Ok(scene.status(active)?.worker.pid.filter(|pid| Some(*pid) != before))
        })?;
        // It may serve by now: then it is no worker that has not taken over, and its end is one that is noticed.
        if scene.status(active)?.is_taking_over {
            baton::lab::process::ProcessHandle::open(new)?.signal(rustix::process::Signal::KILL)?;
        }
        ensure!(reload.wait()?.success(), "the takeover was not completed");
        ensure!(scene.status(active)?.worker.state == "running", "no worker serves");
        Ok(())
    })?;
    ensure!(scene.pair.topology().carries(active, VIP)?, "the VIP is gone");
    Ok(())
}
