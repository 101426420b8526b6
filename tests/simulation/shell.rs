//! A model of the shell, by the contract that `vrrp` and its machine state.

use std::time::Duration;

use baton::vrrp::machine::{Action, HandOverRefusal, Input, LeaseAnswer, Machine, Reason, State};
use baton::vrrp::witness::Answer;

use crate::checks::patience_of_peer;
use crate::node::{Nanos, Operation, QUEUE_MAX};
use crate::wire::{ANSWER, ASK, HELLO, Packet, V4};
use crate::world::{Event, JITTER_MAX, MICROSECOND, MILLISECOND, OPERATION_MAX, SECOND, World};

impl World {
    pub fn deliver(&mut self, to: usize, packet: Packet) -> Result<(), String> {
        let node = &mut self.nodes[to];
        if node.machine.is_some() && node.queue.len() < QUEUE_MAX {
            node.queue.push_back(packet);
        }
        self.turn(to)
    }

    pub fn signal(&mut self, index: usize, input: Input) -> Result<(), String> {
        if self.nodes[index].machine.is_some() {
            self.nodes[index].signals.push_back(input);
        }
        self.turn(index)
    }

    /// The process starts. It removes what an earlier one left behind before it takes part.
    pub fn start(&mut self, index: usize) -> Result<(), String> {
        let duration = self.operation_duration();
        let (now, boot) = (self.instant(), self.random.u64(1..));
        let phase = self.random.u64(0..self.nodes[index].interval());
        let node = &mut self.nodes[index];
        if node.machine.is_some() {
            return Ok(());
        }
        node.machine = Some(Machine::new(node.parameters.clone(), now));
        node.life += 1;
        node.wire.boot(boot);
        let life = node.life;
        if node.vip_held {
            node.operation = Some((self.now + duration, Operation::RemoveStale));
            self.schedule(self.now + duration, Event::Wake { node: index });
        }
        if self.setting.hellos {
            self.schedule(self.now + phase, Event::Hello { node: index, life });
        }
        let (fit, synced) = (self.nodes[index].fit, self.nodes[index].synced);
        self.signal(index, Input::Synced(synced))?;
        if fit {
            self.signal(index, Input::Fit)?;
        }
        self.turn(index)
    }

    fn operation_duration(&mut self) -> Nanos {
        self.random.u64(50 * MICROSECOND..=OPERATION_MAX)
    }

    /// One turn of the shell's loop: what is under way first, then the sockets, then signals, and the timer last.
    pub fn turn(&mut self, index: usize) -> Result<(), String> {
        self.see_whether_it_overslept(index);
        loop {
            let now = self.now;
            let deadline = self.deadline(index);
            let node = &mut self.nodes[index];
            if !node.is_running() {
                return Ok(());
            }
            if let Some((done_at, operation)) = node.operation {
                if now < done_at {
                    return Ok(());
                }
                node.operation = None;
                self.finish(index, operation);
            } else if let Some(action) = node.pending.pop_front() {
                self.perform(index, action)?;
            } else if let Some(input) = node.at_hand.pop_front() {
                self.handle(index, input);
            } else if node.answer_owed {
                node.answer_owed = false;
                self.send_hello(index, None);
            } else if let Some(packet) = node.queue.pop_front() {
                self.receive(index, packet)?;
            } else if let Some(signal) = node.signals.pop_front() {
                self.handle(index, signal);
            } else if deadline.is_some_and(|deadline| deadline <= now) {
                self.handle(index, Input::Timer);
                self.check_deadline(index)?;
            } else {
                break;
            }
        }
        if self.nodes[index].stopping {
            self.note(|| format!("{}: process ended", self.nodes[index].name));
            self.nodes[index].end();
        } else if self.random.u8(..) == 0 {
            self.spurious_timer(index)?;
        }
        self.schedule_wake(index);
        Ok(())
    }

    pub fn deadline(&self, index: usize) -> Option<Nanos> {
        self.nodes[index].machine.as_ref()?.deadline().map(|deadline| self.nanos(deadline))
    }

    fn schedule_wake(&mut self, index: usize) {
        let deadline = self.deadline(index);
        if deadline != self.nodes[index].wake_scheduled {
            self.nodes[index].wake_scheduled = deadline;
            if let Some(deadline) = deadline {
                let jitter = self.random.u64(0..=JITTER_MAX);
                self.schedule(deadline + jitter, Event::Wake { node: index });
            }
        }
    }

    fn receive(&mut self, index: usize, packet: Packet) -> Result<(), String> {
        self.record(index, &packet);
        match packet.path {
            HELLO => self.receive_hello(index, &packet),
            ANSWER => {
                self.receive_answer(index, &packet.bytes);
                Ok(())
            }
            _ => self.receive_advert(index, &packet),
        }
    }

    fn receive_advert(&mut self, index: usize, packet: &Packet) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let unix_time = node.unix_time(self.now);
        match node.wire.hear(packet, unix_time) {
            Ok(_) if packet.injected && self.setting.authentic => {
                return Err(format!("{}: took an advert of the attacker", node.name));
            }
            Ok(heard) => self.handle(index, Input::Heard(heard)),
            Err(reason) => self.counts.refuse(packet, reason),
        }
        Ok(())
    }

    fn receive_hello(&mut self, index: usize, packet: &Packet) -> Result<(), String> {
        let node = &mut self.nodes[index];
        match node.wire.greet(&packet.bytes) {
            Ok(Ok(_)) if packet.injected => return Err(format!("{}: took a hello of the attacker", node.name)),
            Ok(Ok(greeting)) => {
                node.at_hand.push_back(Input::PeerSeen(greeting.seen));
                node.at_hand.extend(greeting.heard.map(Input::Heard));
                node.at_hand.extend(greeting.claim_request.map(|epoch| Input::ClaimRequested { epoch }));
            }
            Ok(Err(answer_now)) => {
                node.answer_owed = answer_now;
                // What is said out of turn has to be true: see first whether we slept.
                self.handle(index, Input::Timer);
            }
            Err(reason) => self.counts.refuse(packet, reason),
        }
        Ok(())
    }

    fn receive_answer(&mut self, index: usize, bytes: &[u8]) {
        let now = self.instant();
        match self.nodes[index].wire.client.answer(now, bytes) {
            Ok(Answer::Granted { until }) => {
                self.counts.leases += 1;
                self.handle(index, Input::Lease(LeaseAnswer::Granted { until }));
            }
            Ok(Answer::Refused(refusal)) => {
                self.handle(index, Input::Lease(LeaseAnswer::Refused { holder: refusal.to_string() }));
            }
            Ok(Answer::Again(question)) => self.carry(ASK, index, question),
            Ok(Answer::Seen { .. }) | Err(_) => {}
        }
    }

    pub fn handle(&mut self, index: usize, input: Input) {
        self.note(|| format!("{}: {}", self.nodes[index].name, show(&input)));
        let now = self.instant();
        let is_backup = self.nodes[index].state() == State::Backup;
        let node = &mut self.nodes[index];
        match &input {
            Input::Stop => node.stopping = true,
            Input::Heard(heard) => {
                if heard.priority > 0 {
                    node.heard_at = Some((self.now, heard.interval.get().as_nanos() as Nanos));
                }
                node.in_use_at = None;
            }
            Input::PeerSeen(seen) if seen.state == State::Init => node.peer_out_at = Some(self.now),
            Input::InUse(_) if is_backup && node.heard_at.is_none() => node.in_use_at = Some(self.now),
            _ => {}
        }
        let Some(machine) = &mut node.machine else { return };
        let was_active = machine.state() == State::Active;
        let actions = machine.handle(now, input);
        let has_right = machine.right_until().is_some_and(|until| until > now);
        let has_spoken = self.now < node.last_sent + patience_of_peer(node);
        if has_right && has_spoken {
            // What waited in its queue shows that it had the right all the time.
            node.must_release = false;
        }
        let Some(machine) = &mut node.machine else { return };
        if !was_active && machine.state() == State::Active {
            node.last_sent = self.now;
        }
        node.decided_at = self.now;
        node.pending.extend(actions);
    }

    fn perform(&mut self, index: usize, action: Action) -> Result<(), String> {
        self.note(|| format!("{}:     {action:?}", self.nodes[index].name));
        match action {
            Action::SendAdvert { .. } if self.is_old(index) => self.nodes[index].left_unheard = true,
            Action::SendAdvert { priority } => self.send(index, priority)?,
            Action::AcquireVip => {
                self.check_acquire(index)?;
                self.nodes[index].announcement_asked = self.now;
                self.nodes[index].left_unheard = false;
                self.begin_operation(index, Operation::Acquire);
            }
            Action::ReleaseVip => {
                self.check_release(index)?;
                self.begin_operation(index, Operation::Release);
            }
            Action::Announce => {
                self.check_announce(index)?;
                self.nodes[index].last_announced = Some(self.now);
                self.nodes[index].announcement_asked = self.now;
            }
            Action::DiscardQueued => {
                self.counts.stalls += 1;
                self.nodes[index].queue.clear();
                self.nodes[index].at_hand.clear();
            }
            Action::RoleChanged { from, to, reason } => self.role_changed(index, from, to, reason)?,
            Action::RequestClaim => self.send_hello(index, Some(self.nodes[index].parameters.priority.get())),
            Action::HandOverDone => self.switchover_answered(index, None)?,
            Action::HandOverFailed { reason } => self.switchover_answered(index, Some(reason))?,
            Action::ProbeAddresses => {
                // Whoever used them may be gone.
                self.nodes[index].in_use_at = None;
                self.probe(index);
            }
            Action::AskLease => {
                // As `guard::leases` has it.
                let time = Duration::from_nanos(self.nodes[index].interval() * 29 / 10);
                let question = self.nodes[index].wire.client.ask(self.instant(), time);
                self.carry(ASK, index, question);
            }
            Action::GiveLeaseBack => {
                let question = self.nodes[index].wire.client.give_back(self.instant());
                self.carry(ASK, index, question);
            }
        }
        Ok(())
    }

    /// It slept since the machine decided.
    fn is_old(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        self.now - node.decided_at >= 3 * node.interval()
    }

    fn role_changed(&mut self, index: usize, from: State, to: State, reason: Reason) -> Result<(), String> {
        self.check_role_change(index, from, to, &reason)?;
        self.counts.role_change(to, &reason);
        let is_troubled = self.is_troubled();
        let node = &mut self.nodes[index];
        node.transitions += 1;
        if from == State::Active {
            node.left_unheard |= is_troubled;
        }
        match (from, to) {
            (_, State::Active) => node.claim = Some((reason, self.now)),
            (State::Init, State::Backup) => node.heard_at = None,
            _ => node.in_use_at = None,
        }
        Ok(())
    }

    fn begin_operation(&mut self, index: usize, operation: Operation) {
        let done_at = self.now + self.operation_duration();
        self.nodes[index].operation = Some((done_at, operation));
        self.schedule(done_at, Event::Wake { node: index });
    }

    fn finish(&mut self, index: usize, operation: Operation) {
        let now = self.now;
        let node = &mut self.nodes[index];
        match operation {
            Operation::Acquire => {
                node.vip_held = true;
                node.last_announced = Some(now);
            }
            Operation::Release | Operation::RemoveStale => {
                node.vip_held = false;
                node.must_release = false;
            }
        }
    }

    fn send(&mut self, from: usize, priority: u8) -> Result<(), String> {
        self.check_send(from, priority)?;
        self.counts.adverts += 1;
        if priority == 0 {
            self.counts.resignations += 1;
        }
        let now = self.now;
        self.nodes[from].last_sent = now;
        for path in 0..self.setting.advert_paths {
            let node = &mut self.nodes[from];
            let unix_time = node.unix_time(now);
            let packet = node.wire.advert(path, unix_time, priority, &node.parameters);
            self.carry(path, from, packet);
        }
        self.send_hello(from, Some(priority));
        Ok(())
    }

    /// The machine looks first. Of an active node, hellos go with its adverts.
    pub fn hello_due(&mut self, index: usize, life: u64) -> Result<(), String> {
        let is_idle = |node: &crate::Node| node.is_running() && !node.is_busy() && node.state() != State::Active;
        if self.nodes[index].life != life || self.nodes[index].machine.is_none() {
            return Ok(());
        }
        if is_idle(&self.nodes[index]) {
            self.handle(index, Input::Timer);
            self.turn(index)?;
        }
        if is_idle(&self.nodes[index]) {
            self.send_hello(index, None);
        }
        let next = self.now + self.nodes[index].interval() + self.random.u64(0..=JITTER_MAX);
        self.schedule(next, Event::Hello { node: index, life });
        Ok(())
    }

    fn send_hello(&mut self, index: usize, advert: Option<u8>) {
        let now = self.instant();
        let node = &mut self.nodes[index];
        if let Some(machine) = node.machine.as_ref().filter(|_| self.setting.hellos) {
            let hello = node.wire.hello(now, machine, node.fit, node.synced, advert);
            self.carry(HELLO, index, hello);
        }
    }

    /// A stranger answers, and so does the kernel of the peer, whether its process is frozen or not.
    fn probe(&mut self, index: usize) {
        let peer = &self.nodes[1 - index];
        let is_reachable = self.links[V4].iter().all(|link| link.cuts == 0);
        let peer_answers = peer.vip_held && peer.machine.is_some() && is_reachable;
        if peer_answers || self.now < self.stranger_until {
            let at = self.now + self.random.u64(100 * MICROSECOND..=MILLISECOND);
            let life = self.nodes[index].life;
            self.schedule(at, Event::InUse { node: index, life });
        }
    }

    pub fn tell_in_use(&mut self, index: usize) -> Result<(), String> {
        self.counts.in_use += 1;
        // It may have been the peer's kernel, which knows nothing of what comes next. Two waits of a second follow.
        self.trouble(self.now + 2 * SECOND + 10 * self.interval_max());
        self.signal(index, Input::InUse("02:00:00:00:00:09".to_owned()))
    }

    fn switchover_answered(&mut self, index: usize, refusal: Option<HandOverRefusal>) -> Result<(), String> {
        let node = &mut self.nodes[index];
        if !std::mem::take(&mut node.switchover_open) {
            return Err(format!("{}: answered a switchover that nobody asked for", node.name));
        }
        node.last_refusal = refusal;
        match refusal {
            None => self.counts.switchovers += 1,
            Some(_) => self.counts.switchovers_failed += 1,
        }
        Ok(())
    }
}

fn show(input: &Input) -> String {
    match input {
        Input::Heard(heard) => format!("hears priority {}, {} ms", heard.priority, heard.interval.get().as_millis()),
        other => format!("{other:?}"),
    }
}
