//! `baton init`: what it asks, what it finds on a real network, what it writes, and that a pair comes of it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use baton::config::{self, PairKey, Scope};
use baton::lab::namespace::Namespace;
use baton::lab::pair::{NODES, VIP};
use baton::lab::process::Process;
use baton::units::IpNetwork;
use libtest_mimic::Trial;

use crate::scene::{Outcome, PATIENCE, Plan, Scene, find_program, program, until};
use crate::small_disk::SmallDisk;
use crate::surroundings::{ip, ip_on};

pub fn trials() -> Vec<Trial> {
    let trial = |name, body: fn(&mut Scene) -> Outcome| Plan::usual().trial(name, body);
    vec![
        trial("init_makes_a_pair_that_serves", init_makes_a_pair_that_serves),
        trial("init_refuses_addresses_that_cannot_be", init_refuses_addresses_that_cannot_be),
        trial("init_finds_an_address_in_use", init_finds_an_address_in_use),
        trial("init_warns_of_what_does_not_answer", init_warns_of_what_does_not_answer),
        trial("init_leaves_the_id_of_a_keepalived_alone", init_leaves_the_id_of_a_keepalived_alone),
        trial("init_says_what_it_has_no_right_to_check", init_says_what_it_has_no_right_to_check),
        trial("init_finds_a_port_in_use", init_finds_a_port_in_use),
        trial("init_asks_again_on_a_terminal", init_asks_again_on_a_terminal),
        trial("init_writes_nothing_when_the_answers_end", init_writes_nothing_when_the_answers_end),
        trial("init_replaces_nothing_silently", init_replaces_nothing_silently),
        trial("init_writes_both_files_or_neither", init_writes_both_files_or_neither),
        trial("init_without_ipv6_says_so", init_without_ipv6_says_so),
    ]
}

/// What init writes on the first node, in a directory of its own.
struct SetUp {
    namespace: Namespace,
    directory: PathBuf,
}

/// The usual answers.
const NODE: [&str; 2] = ["--node", "lb-a=10.77.0.11"];
const PEER: [&str; 2] = ["--peer", "lb-b=10.77.0.12"];
const ADDRESS: [&str; 2] = ["--vip", "10.77.0.100/24"];
const SERVERS: [&str; 4] = ["--server", "10.77.0.21:8080", "--server", "web2=10.77.0.22:8080"];

impl SetUp {
    fn new(scene: &Scene) -> anyhow::Result<Self> {
        let directory = scene.pair.directory().join("etc");
        fs::create_dir_all(&directory)?;
        Ok(Self { namespace: scene.node(NODES[0]).namespace().clone(), directory })
    }

    fn config(&self) -> PathBuf {
        self.directory.join("baton.toml")
    }

    fn key(&self) -> PathBuf {
        self.directory.join("pair.key")
    }

    fn prepare(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.arg("init").arg("--config").arg(self.config()).args(arguments).env_remove("BATON_NODE");
        command
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.prepare(self.namespace.command(program()), arguments);
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// With the usual answers, and further ones.
    fn run_usual(&self, further: &[&str]) -> anyhow::Result<Output> {
        self.run(&[&NODE[..], &PEER, &ADDRESS, &SERVERS, further].concat())
    }

    /// It is refused with this text, and nothing is written.
    fn expect_refusal(&self, arguments: &[&str], text: &str) -> Outcome {
        let output = self.run(arguments)?;
        let said = stderr(&output);
        ensure!(output.status.code() == Some(1), "{arguments:?}: {}\n{said}", output.status);
        ensure!(said.contains(text), "{arguments:?}: it does not say {text}\n{said}");
        self.expect_files(&[])
    }

    /// The directory holds these files, and none that is half written.
    fn expect_files(&self, names: &[&str]) -> Outcome {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            found.push(entry?.file_name().to_string_lossy().into_owned());
        }
        found.sort_unstable();
        ensure!(found == names, "{found:?} and not {names:?}");
        Ok(())
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It succeeds; gives what it said on the way, and what it answered.
fn succeeded(output: &Output) -> anyhow::Result<(String, String)> {
    ensure!(output.status.success(), "{}\n{}", output.status, stderr(output));
    Ok((stderr(output), String::from_utf8(output.stdout.clone())?))
}

fn expect(said: &str, lines: &[&str]) -> Outcome {
    for line in lines {
        ensure!(said.contains(line), "it does not say: {line}\n{said}");
    }
    Ok(())
}

fn init_makes_a_pair_that_serves(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    let (said, answer) = succeeded(&set_up.run_usual(&["--interface", "eth0"])?)?;
    expect(
        &said,
        &[
            "  ok       eth0 is up, has a carrier and 10.77.0.11/24",
            "  ok       lb-b answers at 10.77.0.12\n",
            "  ok       10.77.0.100 is free: nobody on eth0 answers for it\n",
            "  ok       server app1 answers at 10.77.0.21:8080\n",
            "  ok       server web2 answers at 10.77.0.22:8080\n",
            "  ok       port 80 is free on this node for 10.77.0.100\n",
            "  ok       no other virtual router was heard; this one gets the id 51\n",
        ],
    )?;
    let directory = set_up.directory.display();
    expect(
        &answer,
        &[
            &format!("wrote {directory}/baton.toml and {directory}/pair.key\n"),
            &format!("  scp -p {directory}/baton.toml {directory}/pair.key root@10.77.0.12:{directory}/\n"),
            &format!("  baton run --config {directory}/baton.toml\nand on lb-b:\n"),
        ],
    )?;
    set_up.expect_files(&["baton.toml", "pair.key"])?;
    ensure!(fs::metadata(set_up.key())?.permissions().mode() & 0o7777 == 0o600, "the key is open to others");
    ensure!(fs::metadata(set_up.config())?.permissions().mode() & 0o7777 == 0o644, "not everybody may read the file");
    let mut check = set_up.namespace.command(program());
    let checked = check.args(["check", "--node", "lb-a", "--config"]).arg(set_up.config()).output()?;
    ensure!(checked.status.success() && checked.stderr.is_empty(), "{}", stderr(&checked));

    // The same files on both nodes, as the printed command would have put them there.
    fs::copy(set_up.config(), scene.config())?;
    scene.form()?;
    Ok(())
}

fn init_refuses_addresses_that_cannot_be(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    let with = |changed: &[&'static str]| -> Vec<&'static str> {
        let flags: Vec<&str> = changed.iter().copied().filter(|word| word.starts_with("--")).collect();
        let usual = [&NODE[..], &PEER, &ADDRESS, &SERVERS].concat();
        let mut all = changed.to_vec();
        for pair in usual.chunks(2).filter(|pair| !flags.contains(&pair[0])) {
            all.extend(pair);
        }
        all
    };
    for (changed, text) in [
        (&["--vip", "10.78.0.100/24"][..], "10.78.0.100 is in no subnet of eth0, which has 10.77.0.0/24"),
        (&["--vip", "10.77.0.255/32"], "10.77.0.255 is the broadcast address"),
        (&["--vip", "10.77.0.100/8"], "would look for all of 10.0.0.0/8 on eth0: write 10.77.0.100/24"),
        (&["--server", "10.77.0.100:80"], "10.77.0.100:80 is at a virtual address of this pair"),
        (&["--server", "10.77.0.255:80"], "10.77.0.255:80 is at the broadcast address of 10.77.0.0/24 on eth0"),
        (&["--vip", "10.77.0.11/24"], "10.77.0.11 is the own address of lb-a"),
        (&["--vip", "10.77.0.12/24"], "10.77.0.12 is the own address of lb-b"),
        (&["--vip", "10.77.0.100/24", "--vip", "10.77.0.100"], "10.77.0.100 is there twice"),
        (&["--node", "lb-a=10.77.0.13"], "10.77.0.13 is on no interface of this machine"),
        (&["--peer", "lb-b=10.77.0.11"], "10.77.0.11 is an address of this machine, on eth0"),
        (&["--peer", "lb-a=10.77.0.12"], "both nodes would be called lb-a"),
        (&["--peer", "lb-b=2001:db8::1"], "are of different families"),
        (&["--interface", "eth7"], "this machine has no interface eth7: it has lo, eth0"),
        (&["--server", "10.77.0.21"], "10.77.0.21 is no address with a port"),
        (&["--prefer", "lb-c"], "lb-c"),
        (&["--health-path", "up"], "path"),
    ] {
        set_up.expect_refusal(&with(changed), text)?;
    }
    // All that is missing, at once.
    set_up.expect_refusal(&[], "add --peer, --vip, --server")?;
    set_up.expect_refusal(&["--yes", "--vip", "10.77.0.100/24"], "add --peer, --server")
}

fn init_finds_an_address_in_use(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    let v6 = |last: u16, prefix_len| {
        IpNetwork::new(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last), prefix_len).context("a prefix length")
    };
    let topology = scene.pair.topology();
    topology.add_address("web3", IpNetwork::new(VIP, 24).context("a prefix length")?)?;
    topology.add_address("web3", v6(0x100, 64)?)?;
    topology.add_address(NODES[0], v6(0x11, 64)?)?;
    topology.wait_until_addressed("web3")?;
    topology.wait_until_addressed(NODES[0])?;
    let own = [&NODE[..], &PEER, &SERVERS].concat();
    set_up.expect_refusal(
        &[&own[..], &ADDRESS].concat(),
        "10.77.0.100 is in use: the machine with the hardware address",
    )?;
    set_up.expect_refusal(&[&own[..], &["--vip", "fd00::100/64"]].concat(), "fd00::100 is in use: the machine with")?;
    // Beside it both families are free.
    let vips = ["--vip", "10.77.0.101/24", "--vip", "fd00::101"];
    let (said, _) = succeeded(&set_up.run(&[&own[..], &vips].concat())?)?;
    expect(&said, &["10.77.0.101 is free", "fd00::101 is free", "port 80 is free on this node for fd00::101"])?;
    let text = fs::read_to_string(set_up.config())?;
    expect(
        &text,
        &[r#"addresses = ["10.77.0.101/24", "fd00::101/64"]"#, r#"bind = ["10.77.0.101:80", "[fd00::101]:80"]"#],
    )
}

fn init_warns_of_what_does_not_answer(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    scene.pair.topology().cut_cable(NODES[1])?;
    let (said, _) = succeeded(&set_up.run_usual(&["--server", "10.77.0.21:81"])?)?;
    expect(
        &said,
        &[
            "  warning  lb-b does not answer at 10.77.0.12 (",
            "it may be off; else let port 7947 (TCP and UDP) and IP protocol 112 through",
            "  warning  server app3 does not answer at 10.77.0.21:81 (Connection refused",
        ],
    )?;
    // Without a carrier nothing on the network can be asked, which is no reason not to write.
    scene.pair.topology().cut_cable(NODES[0])?;
    until("the node to see its cable cut", PATIENCE, || {
        Ok(ip(scene.node(NODES[0]), "link show eth0")?.contains("NO-CARRIER").then_some(()))
    })?;
    let (said, _) = succeeded(&set_up.run_usual(&["--force"])?)?;
    expect(
        &said,
        &[
            "  warning  eth0 has 10.77.0.11/24",
            "and no carrier: look after its cable",
            "is not checked: eth0 carries nothing now",
        ],
    )?;
    scene.pair.topology().take_interface_down(NODES[0])?;
    let (said, _) = succeeded(&set_up.run_usual(&["--force", "--interface", "eth0"])?)?;
    expect(&said, &["and is down: ip link set eth0 up"])
}

fn init_leaves_the_id_of_a_keepalived_alone(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    let directory = scene.pair.directory().join("keepalived");
    fs::create_dir_all(&directory)?;
    let file = |name: &str| directory.join(name);
    fs::write(
        file("keepalived.conf"),
        "vrrp_instance other {\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  priority 100\n  advert_int 1\n  \
         virtual_ipaddress {\n    10.77.0.200/24\n  }\n}\n",
    )?;
    let machine = scene.pair.topology().host("web3")?;
    let mut command = machine.command(find_program("keepalived", "keepalived")?);
    command.args(["-n", "-l", "-P", "-f"]).arg(file("keepalived.conf"));
    command.arg("-p").arg(file("pid")).arg("-r").arg(file("vrrp.pid"));
    scene.logs.push(file("log"));
    let _keepalived = Process::spawn("keepalived", command, &file("log"))?;
    until("keepalived to be active", PATIENCE, || {
        Ok(ip_on(machine, "-o -4 addr show")?.contains(" 10.77.0.200/").then_some(()))
    })?;
    let usual = [&NODE[..], &PEER, &ADDRESS, &SERVERS].concat();
    set_up.expect_refusal(
        &[&usual[..], &["--virtual-router-id", "51"]].concat(),
        "another virtual router on this network has the id 51: 52 is free",
    )?;
    let (said, _) = succeeded(&set_up.run(&usual)?)?;
    expect(&said, &["  ok       other virtual routers have the id 51; this one gets 52\n"])?;
    expect(&fs::read_to_string(set_up.config())?, &["virtual_router_id = 52"])
}

fn init_says_what_it_has_no_right_to_check(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    let mut command = set_up.namespace.command(find_program("setpriv", "util-linux")?);
    command
        .args(["--bounding-set", "-net_raw,-net_bind_service", "--inh-caps", "-net_raw,-net_bind_service", "--"])
        .arg(program());
    let usual = [&NODE[..], &PEER, &ADDRESS, &SERVERS].concat();
    let (said, _) = succeeded(&set_up.prepare(command, &usual).stdin(Stdio::null()).output()?)?;
    expect(
        &said,
        &[
            "  warning  whether 10.77.0.100 is free is not checked: asking the network needs CAP_NET_RAW; run it as root\n",
            "  warning  whether another virtual router has the id 51 is not checked (",
            "  warning  whether port 80 is free for 10.77.0.100 is not known (Permission denied",
        ],
    )
}

fn init_finds_a_port_in_use(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    let taken = set_up.namespace.run(|| TcpListener::bind("0.0.0.0:80"))??;
    let usual = [&NODE[..], &PEER, &ADDRESS, &SERVERS].concat();
    set_up
        .expect_refusal(&usual, "port 80 is in use on this node by another program: `ss -ltnp sport = 80` names it")?;
    drop(taken);
    let (said, _) = succeeded(&set_up.run(&[&usual[..], &["--listen", "8080", "--health-path", "/up"]].concat())?)?;
    expect(&said, &["port 8080 is free"])?;
    expect(&fs::read_to_string(set_up.config())?, &["10.77.0.100:8080", "path = \"/up\""])
}

/// A terminal with init on it.
struct Terminal {
    master: fs::File,
    child: Child,
    shown: String,
}

impl Terminal {
    fn start(set_up: &SetUp, arguments: &[&str]) -> anyhow::Result<Self> {
        let (mut master, mut slave) = (0, 0);
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: both descriptors are written by the call, and the pointers that may be null are.
        let opened = unsafe { libc::openpty(&mut master, &mut slave, none.cast(), none.cast(), none.cast()) };
        ensure!(opened == 0, "no terminal: {}", std::io::Error::last_os_error());
        // SAFETY: the call has just opened both, and nobody else owns them.
        let (master, slave) = unsafe { (fs::File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        rustix::io::ioctl_fionbio(&master, true)?;
        // In a session of its own, whose terminal this one is: Ctrl-C goes to it.
        let mut command = set_up.namespace.command(find_program("setsid", "util-linux")?);
        command.args(["--ctty", "--wait"]).arg(program());
        let mut command = set_up.prepare(command, arguments);
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        // A shell that starts these tests in the background has them, and what they start, ignore Ctrl-C.
        // SAFETY: between fork and exec only signal(2) is called, which allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(|| match libc::signal(libc::SIGINT, libc::SIG_DFL) {
                libc::SIG_ERR => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let child = command.spawn()?;
        Ok(Self { master, child, shown: String::new() })
    }

    /// Waits for a text that was not shown before.
    fn expect(&mut self, text: &str) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return Ok(());
            }
            if self.read() || Instant::now() > deadline {
                bail!("it does not show: {text}\n{}", self.shown);
            }
        }
    }

    /// Takes what is there; whether that was all, as nobody is at the other end any more (EIO).
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(len) => self.shown.push_str(&String::from_utf8_lossy(&bytes[..len])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(3)),
            Err(_) => return true,
        }
        false
    }

    fn answer(&mut self, prompt: &str, line: &str) -> Outcome {
        self.expect(prompt)?;
        Ok(self.master.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Waits for its end, reading on; whether it succeeded.
    fn end(mut self) -> anyhow::Result<(bool, String)> {
        let status = until("init to end", PATIENCE, || {
            self.read();
            Ok(self.child.try_wait()?)
        })?;
        // What was written arrives a little later.
        until("all that init has shown", PATIENCE, || Ok(self.read().then_some(())))?;
        Ok((status.success(), std::mem::take(&mut self.shown)))
    }
}

fn init_asks_again_on_a_terminal(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    let mut terminal = Terminal::start(&set_up, &["--server", "10.77.0.21:8080"])?;
    terminal.answer("Interface that carries the virtual address [eth0]: ", "eth9")?;
    terminal.expect("error    this machine has no interface eth9: it has lo, eth0")?;
    terminal.answer("Interface that carries the virtual address [eth0]: ", "")?;
    terminal.expect("ok       eth0 is up")?;
    terminal.expect("This node, NAME=ADDRESS [")?;
    terminal.answer("=10.77.0.11]: ", "lb-a=10.77.0.11")?;
    terminal.answer("The other node, NAME=ADDRESS: ", "")?;
    terminal.expect("error    there is no answer")?;
    // Its name is guessed from this one's.
    terminal.answer("The other node, NAME=ADDRESS: ", "10.77.0.12")?;
    terminal.expect("ok       lb-b answers at 10.77.0.12")?;
    terminal.answer("Virtual address with prefix length, or several: ", "10.0.0.1")?;
    terminal.expect("error    10.0.0.1 is in no subnet of eth0")?;
    terminal.answer("Virtual address with prefix length, or several: ", "10.77.0.100")?;
    terminal.expect("ok       10.77.0.100 is free")?;
    terminal.expect("ok       server app1 answers")?;
    terminal.answer("Port that clients connect to [80]: ", "")?;
    terminal.answer("? [yes]: ", "perhaps")?;
    terminal.expect("that is neither yes nor no")?;
    set_up.expect_files(&[])?;
    terminal.answer("? [yes]: ", "")?;
    let (succeeded, shown) = terminal.end()?;
    ensure!(succeeded, "{shown}");
    let (config, key) = (config::load(&set_up.config(), Scope::File)?, PairKey::load(&set_up.key()));
    assert_eq!(config.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), NODES);
    ensure!(key.is_ok(), "there is no key");
    Ok(())
}

fn init_writes_nothing_when_the_answers_end(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    // Ctrl-D, Ctrl-C, and a no at the end.
    for (key, text) in [("\u{4}", "the input has ended; nothing was written"), ("\u{3}", "")] {
        let mut terminal = Terminal::start(&set_up, &[&NODE[..], &["--interface", "eth0"]].concat())?;
        terminal.expect("The other node, NAME=ADDRESS: ")?;
        terminal.master.write_all(key.as_bytes())?;
        let (succeeded, shown) = terminal.end()?;
        ensure!(!succeeded && shown.contains(text), "{shown}");
        set_up.expect_files(&[])?;
    }
    let usual = [&NODE[..], &PEER, &ADDRESS, &SERVERS, &["--interface", "eth0", "--listen", "80"]].concat();
    let mut terminal = Terminal::start(&set_up, &usual)?;
    terminal.answer("? [yes]: ", "no")?;
    let (succeeded, shown) = terminal.end()?;
    ensure!(!succeeded && shown.contains("nothing was written"), "{shown}");
    set_up.expect_files(&[])
}

fn init_replaces_nothing_silently(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    fs::write(set_up.config(), "# mine\n")?;
    let refused = set_up.run_usual(&[])?;
    ensure!(refused.status.code() == Some(1), "{}", refused.status);
    expect(
        &stderr(&refused),
        &["is there already and is not as it was installed, so it stays. To replace it, add --force"],
    )?;
    assert_eq!(fs::read_to_string(set_up.config())?, "# mine\n");
    set_up.expect_files(&["baton.toml"])?;

    let (_, answer) = succeeded(&set_up.run_usual(&["--force"])?)?;
    expect(&answer, &["the configuration before is ", "baton.toml.bak\n"])?;
    set_up.expect_files(&["baton.toml", "baton.toml.bak", "pair.key"])?;
    assert_eq!(fs::read_to_string(set_up.directory.join("baton.toml.bak"))?, "# mine\n");

    // As the packages install it, it may go; the key is the one that the other node may have by now.
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/baton.toml");
    fs::copy(installed, set_up.config())?;
    let key = fs::read_to_string(set_up.key())?;
    let (_, answer) = succeeded(&set_up.run_usual(&[])?)?;
    expect(&answer, &["baton.toml.bak2\n", "used the key that was there, "])?;
    assert_eq!(fs::read_to_string(set_up.key())?, key);

    fs::set_permissions(set_up.key(), fs::Permissions::from_mode(0o644))?;
    fs::remove_file(set_up.config())?;
    let refused = set_up.run_usual(&[])?;
    ensure!(refused.status.code() == Some(1), "{}", refused.status);
    expect(
        &stderr(&refused),
        &["the key that is there cannot be used: ", "mode 0644", "chmod 600", "or add --force for a new one"],
    )?;
    succeeded(&set_up.run_usual(&["--force"])?)?;
    ensure!(fs::read_to_string(set_up.key())? != key, "the exposed key is used on");
    Ok(())
}

fn init_writes_both_files_or_neither(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    let disk = SmallDisk::mount(&set_up.directory)?;
    let filler = disk.fill()?;
    let full = set_up.run_usual(&[])?;
    ensure!(full.status.code() == Some(1), "{}", full.status);
    expect(&stderr(&full), &["failed to write ", "No space left on device", "make room"])?;
    set_up.expect_files(&["filler"])?;
    fs::remove_file(&filler)?;
    // The key cannot be put where a directory is.
    let other = set_up.directory.join("keys");
    fs::create_dir(&other)?;
    let keyed = set_up.run_usual(&["--key", &other.display().to_string(), "--force"])?;
    ensure!(keyed.status.code() == Some(1), "{}", keyed.status);
    set_up.expect_files(&["keys"])?;
    fs::remove_dir(&other)?;
    rustix::mount::mount_remount(&set_up.directory, rustix::mount::MountFlags::RDONLY, c"")?;
    let read_only = set_up.run_usual(&[])?;
    ensure!(read_only.status.code() == Some(1), "{}", read_only.status);
    expect(
        &stderr(&read_only),
        &["Read-only file system", "mount it for writing, or choose another place with --config FILE"],
    )?;
    set_up.expect_files(&[])?;
    drop(disk);
    let gone = set_up.run_usual(&["--key", "/nowhere/pair.key"])?;
    expect(&stderr(&gone), &["failed to write /nowhere/pair.key", "make its directory first", "--key FILE"])
}

fn init_without_ipv6_says_so(scene: &mut Scene) -> Outcome {
    let set_up = SetUp::new(scene)?;
    set_up.namespace.run(|| fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1"))??;
    let usual = [&NODE[..], &PEER, &SERVERS, &["--vip", "fd00::100/64"]].concat();
    set_up.expect_refusal(
        &usual,
        "IPv6 is off on eth0, so that it cannot carry fd00::100: sysctl net.ipv6.conf.eth0.disable_ipv6=0 on both nodes",
    )
}
