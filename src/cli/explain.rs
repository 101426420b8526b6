//! `baton explain`: why each VIP is where it is, in sentences.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::status::{ask, sync_sentence, time};
use crate::guard::control::{self, Answer, Request};
use crate::status::{NodeStatus, PathStatus, PeerVipStatus, Role, VipStatus, WitnessStatus};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The vip to explain; all of them if none is named
    #[arg(value_name = "VIP")]
    vip: Option<String>,
    /// Where the node keeps its control socket
    #[arg(long, value_name = "DIR", default_value = control::RUNTIME_DIR)]
    runtime_dir: PathBuf,
}

/// Asks the guard and says what it makes of the answer.
///
/// # Errors
/// When no guard answers, or it has no such vip.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Answer::Status(status) = ask(&arguments.runtime_dir, &Request::Status)? else {
        bail!("the guard answered something else than was asked");
    };
    let is_meant = |vip: &&VipStatus| arguments.vip.as_ref().is_none_or(|name| *name == vip.name);
    let vips: Vec<&VipStatus> = status.vips.iter().filter(is_meant).collect();
    if vips.is_empty() {
        let known: Vec<&str> = status.vips.iter().map(|vip| vip.name.as_str()).collect();
        match &arguments.vip {
            Some(name) if !known.is_empty() => bail!("there is no vip {name}; this node has {}", known.join(", ")),
            _ => bail!("this node has no vip"),
        }
    }
    let texts: Vec<String> = vips.into_iter().map(|vip| explain(&status, vip)).collect();
    super::answer(&texts.join("\n")).context("failed to print the explanation")
}

/// The sentences for one VIP, one a line. Writing to a `String` cannot fail, so that the results are let go.
fn explain(status: &NodeStatus, vip: &VipStatus) -> String {
    let mut text = String::new();
    let mut say = |sentence: String| {
        let _ = writeln!(text, "  {sentence}");
    };
    say(where_it_is(status, vip));
    if let Some(waiting) = &vip.waiting {
        say(format!("It is waiting: {waiting}."));
    }
    vip.faults.iter().for_each(|fault| say(format!("It cannot take part: {fault}.")));
    say(about_the_peer(status, vip));
    if let Some(sync) = &status.sync {
        say(format!("Sessions with {}: {}.", sync.peer, sync_sentence(sync)));
    }
    vip.paths.iter().for_each(|path| say(about_a_path(vip, path)));
    say(what_happens_next(status, vip));
    if let Some(witness) = &status.witness {
        say(about_the_witness(witness));
    }
    if !vip.adverts_dropped.is_empty() {
        let dropped: Vec<String> =
            vip.adverts_dropped.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " "))).collect();
        say(format!("Packets refused since the start: {}.", dropped.join(", ")));
    }
    format!("vip {} ({} on {})\n{text}", vip.name, vip.addresses.join(" "), vip.interface)
}

fn where_it_is(status: &NodeStatus, vip: &VipStatus) -> String {
    let role = match vip.role {
        Role::Active => "has held it",
        Role::Standby => "has been its standby",
        Role::Unfit => "has taken no part in it",
    };
    format!("This node, {}, {role} for {}, because: {}.", status.node, time(vip.since_ms), vip.reason)
}

fn about_the_peer(status: &NodeStatus, vip: &VipStatus) -> String {
    let Some(peer) = &status.peer else {
        return "There is no other node: nothing takes over when this one fails.".to_owned();
    };
    match (&vip.peer_says, &vip.peer) {
        (Some(says), _) => format!("The peer, {}, {}.", peer.node, peer_sentence(says)),
        (None, Some(heard)) => format!(
            "The peer, {}, sent its last advert {} ago, with priority {}.",
            peer.node,
            time(heard.age_ms),
            heard.priority
        ),
        (None, None) => format!("Nothing was heard of the peer, {}, since this node started.", peer.node),
    }
}

fn peer_sentence(says: &PeerVipStatus) -> String {
    let fit = if says.fit { "fit" } else { "unfit" };
    let synced = if says.synced { "" } else { " and not synced" };
    let config = if says.config_differs { "; it runs another configuration" } else { "" };
    format!(
        "said {} ago that it is {} and {fit}{synced}, and sees {} up in {}{config}",
        time(says.age_ms),
        says.role,
        counted(says.servers_up, "server"),
        counted(says.pools_up, "pool")
    )
}

fn counted(count: u16, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn about_a_path(vip: &VipStatus, path: &PathStatus) -> String {
    let heard = path.last_heard_ms.map_or("never heard".to_owned(), |ms| format!("last heard {} ago", time(ms)));
    // A standby that speaks only VRRP is silent by design.
    let silent =
        if vip.role == Role::Active && !path.is_link { ", as it should be while this node is active" } else { "" };
    let failures =
        if path.send_failures > 0 { format!("; {} sends failed", path.send_failures) } else { String::new() };
    format!("Path {}: the peer {heard}{silent}{failures}.", path.name)
}

fn about_the_witness(witness: &WitnessStatus) -> String {
    match witness.last_answer_ms {
        Some(ms) if witness.reachable => {
            format!(
                "The witness at {} answered {} ago: it decides when the nodes cannot hear each other.",
                witness.address,
                time(ms)
            )
        }
        Some(ms) => format!(
            "The witness at {} has not answered for {}: while the nodes cannot hear each other, none of them can claim.",
            witness.address,
            time(ms)
        ),
        None => format!("The witness at {} has never answered since this node started.", witness.address),
    }
}

fn what_happens_next(status: &NodeStatus, vip: &VipStatus) -> String {
    let patience = time(vip.patience_ms);
    let peer = status.peer.as_ref().map_or("the peer", |peer| peer.node.as_str());
    let stays = match &vip.prefer {
        Some(node) if *node == status.node => format!(
            "This node is preferred: it takes the vip back once it has been fit and synced for {}.",
            time(vip.prefer_hold_ms)
        ),
        Some(node) => format!(
            "{node} is preferred and takes the vip back {} after it is fit and synced.",
            time(vip.prefer_hold_ms)
        ),
        None => "No node is preferred: whoever holds the vip keeps it until it fails or `baton switchover` moves it."
            .to_owned(),
    };
    match vip.role {
        Role::Active if status.peer.is_some() => {
            format!(
                "If this node goes silent, {peer} claims the vip after about three intervals of {} ms; if it resigns, at once. {stays}",
                vip.advert_interval_ms
            )
        }
        Role::Active => stays,
        Role::Standby => format!(
            "It claims the vip when every path has been silent for {patience}, or at once when {peer} resigns. {stays}"
        ),
        Role::Unfit => format!("It takes part again when nothing speaks against it. {stays}"),
    }
}
