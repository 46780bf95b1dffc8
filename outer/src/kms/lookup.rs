//! Looks up an endpoint's addresses, with the resolver that answers the guests' queries.

use std::net::IpAddr;

use bytes::Bytes;
use futures::future::join;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use odyn_proto::Refusal;

use crate::resolver::{LookupShare, SystemResolver};

/// Looks up the addresses of both families, IPv6 first.
///
/// RFC 6724 prefers IPv6, and an address that does not answer costs a head start only.
///
/// # Errors
/// The name does not exist or has no address, or the resolver fails.
pub(super) async fn addresses(
    resolver: &SystemResolver,
    name: &str,
    share: &LookupShare,
) -> Result<Vec<IpAddr>, Refusal> {
    let name = Name::from_ascii(format!("{name}.")).map_err(|_| Refusal::BadRequest)?;
    let (v6, v4) = join(
        ask(resolver, &name, RecordType::AAAA, share),
        ask(resolver, &name, RecordType::A, share),
    )
    .await;
    let found = match (v6, v4) {
        (Ok(v6), Ok(v4)) => [v6, v4].concat(),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => one,
        (Err(refusal), Err(_)) => return Err(refusal),
    };
    match found.is_empty() {
        true => Err(Refusal::DnsError),
        false => Ok(found),
    }
}

async fn ask(
    resolver: &SystemResolver,
    name: &Name,
    kind: RecordType,
    share: &LookupShare,
) -> Result<Vec<IpAddr>, Refusal> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    let query = message.to_bytes().map_err(|_| Refusal::Internal)?;
    let answer = resolver.exchange(Bytes::from(query), share).await;
    let answer = answer.map_err(|_| Refusal::Internal)?;
    let answer = Message::from_bytes(&answer).map_err(|_| Refusal::DnsError)?;
    if answer.metadata.response_code != ResponseCode::NoError {
        return Err(Refusal::DnsError);
    }
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    };
    Ok(answer
        .answers
        .iter()
        .filter_map(|record| address(&record.data))
        .collect())
}
