//! The status as tables for people.

use super::report::StatusReport;

const GUESTS: [&str; 5] = ["GUEST", "PEER", "STATE", "SINCE", "LINK"];
const LISTENERS: [&str; 5] = ["LISTENER", "STATE", "GUEST", "CLIENTS", "REFUSED"];

/// A table of the guests, and one of the listeners if there are any.
pub(super) fn render(snapshot: &StatusReport) -> String {
    let guests = snapshot.guests.iter().map(|guest| {
        [
            guest.name.clone(),
            guest.peer.clone(),
            guest.state.to_string(),
            guest.since.clone(),
            if guest.connected { "up" } else { "-" }.to_owned(),
        ]
    });
    let mut text = table(GUESTS, guests);
    if !snapshot.listeners.is_empty() {
        text.push('\n');
        let listeners = snapshot.listeners.iter().map(|listener| {
            let state = match &listener.reason {
                Some(reason) => format!("{} ({reason})", listener.state.as_str()),
                None => listener.state.as_str().to_owned(),
            };
            [
                listener.mapping.clone(),
                state,
                listener.guest.clone().unwrap_or_else(|| "-".to_owned()),
                listener.clients.to_string(),
                listener.refused.to_string(),
            ]
        });
        text.push_str(&table(LISTENERS, listeners));
    }
    text
}

fn table(head: [&str; 5], lines: impl Iterator<Item = [String; 5]>) -> String {
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(lines);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 5] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_have_a_table_of_their_own() {
        let json = r#"{"guests":[],"listeners":[
            {"mapping":"443=[::]:443","state":"ready","guest":"shop 01","peer":"cid 16",
             "clients":7,"refused":0},
            {"mapping":"80=fd:web","state":"unavailable","reason":"no","guest":"shop 01",
             "peer":"cid 16","clients":0,"refused":3}]}"#;
        let snapshot: StatusReport = serde_json::from_str(json).unwrap();
        assert_eq!(
            render(&snapshot),
            "GUEST  PEER  STATE  SINCE  LINK\n\n\
             LISTENER      STATE             GUEST    CLIENTS  REFUSED\n\
             443=[::]:443  ready             shop 01  7        0\n\
             80=fd:web     unavailable (no)  shop 01  0        3\n"
        );
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let json = r#"{"guests":[
            {"name":"payments","peer":"cid 16","run":"00","state":"exited","code":3,
             "since":"2026-11-21T01:02:03.000Z","connected":false,"feeds":{}},
            {"name":"b","peer":"cid 17","run":"01","state":"fatal","reason":"no\u001b[2J",
             "since":"2026-11-21T01:02:03.000Z","connected":true,
             "feeds":{"log":{"records":7,"ended":false}}}]}"#;
        let snapshot: StatusReport = serde_json::from_str(json).unwrap();
        assert_eq!(
            render(&snapshot),
            "GUEST     PEER    STATE               SINCE                     LINK\n\
             payments  cid 16  exited(3)           2026-11-21T01:02:03.000Z  -\n\
             b         cid 17  fatal(no\\u{1b}[2J)  2026-11-21T01:02:03.000Z  up\n"
        );
    }
}
