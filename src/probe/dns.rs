//! A question to a name server (RFC 1035).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpStream;

use super::exchange::Exchange;
use super::udp;
use crate::config::DnsCheck;
use crate::proxy::server_io::ServerStream;
use crate::proxy::socket::Socket;

const HEADER_BYTES: usize = 12;
/// Records of an answer that are looked at.
const RECORDS_MAX: u16 = 256;
/// Datagrams that are passed over because they answer something else.
const STRANGERS_MAX: usize = 16;
const CLASS_IN: u16 = 1;

/// Asks, and judges the answer.
pub(super) async fn ask(address: SocketAddr, check: &DnsCheck) -> Result<String, String> {
    let id = fastrand::u16(..);
    let question = question(&check.name, check.record);
    let query = [&id.to_be_bytes()[..], &[0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0], &question].concat();
    if check.over_tcp {
        let stream = TcpStream::connect(address).await.map_err(|error| udp::connect_failed(&error))?;
        let mut exchange = Exchange::new(ServerStream::Plain(Socket::new(stream)));
        let len = u16::try_from(query.len()).unwrap_or_default().to_be_bytes();
        exchange.send(&[&len[..], &query].concat()).await?;
        let len = u16::from_be_bytes(exchange.array().await?);
        let answer = exchange.take(usize::from(len)).await?;
        return judged(&answer, id, &question, check).unwrap_or_else(|| Err(NONSENSE.to_owned()));
    }
    let socket = udp::connect(address).await?;
    udp::send(&socket, &query).await?;
    for _ in 0..STRANGERS_MAX {
        let answer = udp::receive(&socket).await?;
        if let Some(judged) = judged(&answer, id, &question, check) {
            return judged;
        }
    }
    Err(NONSENSE.to_owned())
}

const NONSENSE: &str = "its answer is none to the question";

fn question(name: &str, record: u16) -> Vec<u8> {
    let mut question = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        question.push(u8::try_from(label.len()).unwrap_or_default());
        question.extend(label.as_bytes());
    }
    question.push(0);
    question.extend(record.to_be_bytes());
    question.extend(CLASS_IN.to_be_bytes());
    question
}

/// `None` for what does not answer the question.
fn judged(answer: &[u8], id: u16, question: &[u8], check: &DnsCheck) -> Option<Result<String, String>> {
    let header = answer.first_chunk::<HEADER_BYTES>()?;
    let [id_high, id_low, flags, code, questions_high, questions_low, answers_high, answers_low, ..] = *header;
    let asked = answer.get(HEADER_BYTES..HEADER_BYTES + question.len());
    let is_echoed = asked.is_some_and(|asked| asked.eq_ignore_ascii_case(question));
    let has_question = [questions_high, questions_low] == [0, 1] && is_echoed;
    // A server that refuses may leave the question out.
    let may_be_without = [questions_high, questions_low] == [0, 0] && code & 0x0f != 0;
    if u16::from_be_bytes([id_high, id_low]) != id || flags & 0x80 == 0 || !(has_question || may_be_without) {
        return None;
    }
    let rcode = code & 0x0f;
    if rcode != check.rcode {
        return Some(Err(format!("it answers {}", name_of(rcode))));
    }
    if rcode != 0 {
        return Some(Ok(format!("it answers {}", name_of(rcode))));
    }
    let records = records(answer, HEADER_BYTES + question.len(), u16::from_be_bytes([answers_high, answers_low]));
    let is_cut = flags & 0x02 != 0;
    let of_type = records.iter().filter(|(kind, _)| *kind == check.record).count();
    Some(match check.answer {
        Some(wanted) if !records.iter().any(|(_, data)| address_of(data) == Some(wanted)) => {
            Err(format!("{wanted} is not in its answer"))
        }
        None if of_type == 0 && !is_cut => Err("its answer is empty".to_owned()),
        _ => Ok(format!("{of_type} records")),
    })
}

fn name_of(rcode: u8) -> String {
    let names = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
    names.get(usize::from(rcode)).map_or_else(|| format!("code {rcode}"), |name| (*name).to_owned())
}

fn address_of(data: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(data) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// The types and data of records, as far as they can be read.
fn records(answer: &[u8], mut at: usize, count: u16) -> Vec<(u16, &[u8])> {
    let mut records = Vec::new();
    for _ in 0..count.min(RECORDS_MAX) {
        let Some((kind, data, next)) = record(answer, at) else { break };
        records.push((kind, data));
        at = next;
    }
    records
}

fn record(answer: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let at = name_end(answer, at)?;
    let head = answer.get(at..)?.first_chunk::<10>()?;
    let [kind_high, kind_low, _, _, _, _, _, _, len_high, len_low] = *head;
    let start = at + 10;
    let end = start + usize::from(u16::from_be_bytes([len_high, len_low]));
    Some((u16::from_be_bytes([kind_high, kind_low]), answer.get(start..end)?, end))
}

/// Where a name ends. What a pointer points to (section 4.1.4) is never followed.
fn name_end(answer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *answer.get(at)? {
            0 => return Some(at + 1),
            len if len & 0xc0 == 0xc0 => return Some(at + 2),
            len => at += 1 + usize::from(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: Option<&str>) -> DnsCheck {
        let answer = answer.map(|answer| answer.parse().unwrap());
        DnsCheck { name: "a.example".to_owned(), record: 1, over_tcp: false, rcode: 0, answer }
    }

    /// An answer with id 7 to the question for `a.example`.
    fn answer(code: u8, records: &[[u8; 4]]) -> Vec<u8> {
        let mut bytes = vec![0, 7, 0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
        bytes.extend(b"\x01a\x07example\x00\x00\x01\x00\x01");
        for data in records {
            bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04");
            bytes.extend(data);
        }
        bytes
    }

    fn judge(answer: &[u8], check: &DnsCheck) -> Option<Result<String, String>> {
        judged(answer, 7, &question(&check.name, check.record), check)
    }

    #[test]
    fn an_answer_is_judged_by_its_code_and_records() {
        let two = answer(0, &[[192, 0, 2, 1], [192, 0, 2, 2]]);
        assert_eq!(judge(&two, &check(None)), Some(Ok("2 records".to_owned())));
        assert_eq!(judge(&two, &check(Some("192.0.2.2"))), Some(Ok("2 records".to_owned())));
        let missing = Some(Err("192.0.2.3 is not in its answer".to_owned()));
        assert_eq!(judge(&two, &check(Some("192.0.2.3"))), missing);
        assert_eq!(judge(&answer(0, &[]), &check(None)), Some(Err("its answer is empty".to_owned())));
        assert_eq!(judge(&answer(3, &[]), &check(None)), Some(Err("it answers NXDOMAIN".to_owned())));
        let nxdomain = DnsCheck { rcode: 3, ..check(None) };
        assert_eq!(judge(&answer(3, &[]), &nxdomain), Some(Ok("it answers NXDOMAIN".to_owned())));
    }

    #[test]
    fn what_answers_something_else_is_no_answer() {
        let mut other_id = answer(0, &[[192, 0, 2, 1]]);
        other_id[1] = 8;
        assert_eq!(judge(&other_id, &check(None)), None);
        let mut other_name = answer(0, &[[192, 0, 2, 1]]);
        other_name[13] = b'b';
        assert_eq!(judge(&other_name, &check(None)), None);
        let mut a_question = answer(0, &[[192, 0, 2, 1]]);
        a_question[2] = 1;
        assert_eq!(judge(&a_question, &check(None)), None);
        assert_eq!(judge(b"", &check(None)), None);
    }

    #[test]
    fn records_that_are_cut_off_or_point_astray_are_passed_over() {
        let whole = answer(0, &[[192, 0, 2, 1]]);
        for len in 12..whole.len() {
            let _no_panic = judge(&whole[..len], &check(None));
        }
        assert_eq!(judge(&whole[..whole.len() - 1], &check(None)), Some(Err("its answer is empty".to_owned())));
    }
}
