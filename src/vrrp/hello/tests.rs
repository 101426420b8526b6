//! Bytes, freshness, recordings, and one rejection a reason.

use super::*;

const KEY: &[u8] = b"pair key";
const BOOT_A: u64 = 0xa1a1_a1a1_a1a1_a1a1;
const BOOT_B: u64 = 0xb1b1_b1b1_b1b1_b1b1;

fn node_a(boot: u64) -> Channel {
    Channel::new(KEY, "web", "lb-a", "lb-b", 0, boot)
}

fn node_b(boot: u64) -> Channel {
    Channel::new(KEY, "web", "lb-b", "lb-a", 0, boot)
}

fn hello() -> Hello {
    Hello {
        state: State::Active,
        priority: 250,
        interval: AdvertInterval::new(Duration::from_millis(100)).unwrap(),
        epoch: 7,
        fit: true,
        synced: false,
        claim_request: Some(0x0102_0304),
        handover_request: None,
        pools_up: 3,
        servers_up: 260,
        heard_paths: 0b101,
        config_checksum: [0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7],
        advert_sequence: 0x6b01_87c0_0000_0000,
    }
}

/// A hello that can be told from others.
fn numbered(epoch: u32) -> Hello {
    Hello { epoch, ..hello() }
}

const FRESH: Result<Opened, DropReason> = Ok(Opened::Fresh(HELLO));
const HELLO: Hello = Hello {
    state: State::Active,
    priority: 250,
    interval: hundred_ms(),
    epoch: 7,
    fit: true,
    synced: false,
    claim_request: Some(0x0102_0304),
    handover_request: None,
    pools_up: 3,
    servers_up: 260,
    heard_paths: 0b101,
    config_checksum: [0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7],
    advert_sequence: 0x6b01_87c0_0000_0000,
};
