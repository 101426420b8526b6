//! Ids of requests, and the traceparent of W3C Trace Context: what is one, and how one is made. Core.

use std::fmt::Write as _;

/// Characters of an id that is taken over from somebody else.
pub const ID_CHARS_MAX: usize = 128;

/// Whether an id of somebody else can go into a field, a log line and a URL as it is.
pub fn is_id(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=:@".contains(byte);
    (1..=ID_CHARS_MAX).contains(&text.len()) && text.iter().all(allowed)
}

/// A UUID of version 7 (RFC 9562 section 5.7): 48 bits of time in front, so that ids sort by it, and 74 bits of chance.
pub fn uuid_v7(unix_ms: u64, random: [u8; 16]) -> String {
    let chance = u128::from_be_bytes(random);
    let time = u128::from(unix_ms & 0xffff_ffff_ffff) << 80;
    let version = 0x7 << 76;
    let variant = 0b10 << 62;
    let kept = (0x0fff << 64) | (u128::MAX >> 66);
    let id = time | version | variant | (chance & kept);
    let digits = format!("{id:032x}");
    let mut text = String::with_capacity(36);
    for (index, digit) in digits.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// Whether it is a traceparent that can be passed on (W3C Trace Context section 3.2). Of versions that are not known yet, what
/// stands behind the four known parts counts for nothing.
pub fn is_traceparent(text: &[u8]) -> bool {
    let mut parts = text.splitn(5, |byte| *byte == b'-');
    let mut part = |len: usize| {
        let part = parts.next().filter(|part| part.len() == len)?;
        part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
    };
    let (Some(version), Some(trace), Some(parent), Some(_flags)) = (part(2), part(32), part(16), part(2)) else {
        return false;
    };
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let is_last = parts.next().is_none();
    version != b"ff" && !is_zero(trace) && !is_zero(parent) && (is_last || version != b"00")
}

/// A traceparent that begins a trace. Whether it is recorded is for those to decide who record: the flag is not set.
pub fn traceparent(trace: [u8; 16], parent: [u8; 8]) -> String {
    // Zero means none, and comes up once in the lifetime of the universe.
    let (trace, parent) = (u128::from_be_bytes(trace).max(1), u64::from_be_bytes(parent).max(1));
    let mut text = String::with_capacity(55);
    // Writing to a String cannot fail.
    let _ = write!(text, "00-{trace:032x}-{parent:016x}-00");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_of_the_rfc_is_made() {
        // RFC 9562 appendix A.6: 2022-02-22 19:22:22.00 GMT, rand_a 0xcc3, rand_b 0x18c4dc0c0c07398f.
        let random = (0xcc3_u128 << 64) | 0x18c4_dc0c_0c07_398f;
        let expected = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
        assert_eq!(uuid_v7(0x017f_22e2_79b0, random.to_be_bytes()), expected);
        assert_eq!(uuid_v7(0x017f_22e2_79b0, (random | !((0xfff << 64) | (u128::MAX >> 66))).to_be_bytes()), expected);
        assert_eq!(uuid_v7(u64::MAX, [0; 16]), "ffffffff-ffff-7000-8000-000000000000");
        assert_eq!(uuid_v7(0, [0xff; 16]), "00000000-0000-7fff-bfff-ffffffffffff");
    }

    #[test]
    fn ids_of_others_are_short_and_harmless() {
        for id in ["a", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "AZ09-_.~+/=:@", &"x".repeat(128)] {
            assert!(is_id(id.as_bytes()), "{id:?}");
        }
        for id in ["", " ", "a b", "a\"", "a,b", "a;b", "<a>", "{a}", "a\\", "a\t", "\u{e4}", "a\0", &"x".repeat(129)] {
            assert!(!is_id(id.as_bytes()), "{id:?}");
        }
    }

    #[test]
    fn traceparents_are_those_of_the_specification() {
        for good in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be-like",
        ] {
            assert!(is_traceparent(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.x",
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad:?}");
        }
        let made = traceparent([0xab; 16], [0xcd; 8]);
        assert_eq!(made, "00-abababababababababababababababab-cdcdcdcdcdcdcdcd-00");
        assert!(is_traceparent(traceparent([0; 16], [0; 8]).as_bytes()));
    }
}
