//! Which replies a client wants: the state behind `CLIENT REPLY`.

/// Pure state machine, one step per command.
///
/// ```text
/// CLIENT REPLY OFF:   this command and all that follow are mute, until ON or RESET
/// CLIENT REPLY SKIP:  this command and the next are mute; has no effect while OFF
/// CLIENT REPLY ON:    this command and all that follow are answered
/// ```
///
/// The command runs first (it may change the mode), then [`ReplyMode::finish_command`] says
/// whether its reply is sent: so `ON` is answered and `OFF` is not. Redis keeps the same three
/// flags (`CLIENT_REPLY_*` in `server.h`, moved on by `resetClient`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReplyMode {
    off: bool,
    skip: bool,
    skip_next: bool,
}

impl ReplyMode {
    /// `CLIENT REPLY ON`.
    pub fn on(&mut self) {
        self.off = false;
        self.skip = false;
    }

    /// `CLIENT REPLY OFF`.
    pub fn off(&mut self) {
        self.off = true;
    }

    /// `CLIENT REPLY SKIP`, which itself has no reply.
    pub fn skip(&mut self) {
        if !self.off {
            self.skip_next = true;
        }
    }

    /// `RESET`. A skip that is under way still mutes the reply of the `RESET`.
    pub fn reset(&mut self) {
        self.off = false;
        self.skip_next = false;
    }

    /// Ends a command: whether its reply is to be sent. Call once per command, after it ran or
    /// was sent to its node.
    #[must_use = "a muted reply must not be sent"]
    pub fn finish_command(&mut self) -> bool {
        let muted = self.off || self.skip || self.skip_next;
        self.skip = self.skip_next;
        self.skip_next = false;
        !muted
    }

    pub(super) fn bits(self) -> u8 {
        u8::from(self.off) | u8::from(self.skip) << 1 | u8::from(self.skip_next) << 2
    }

    pub(super) fn from_bits(bits: u8) -> Self {
        Self {
            off: bits & 1 != 0,
            skip: bits & 2 != 0,
            skip_next: bits & 4 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs commands (`on`, `off`, `skip`, `reset`, anything else is an ordinary one) and says
    /// which of them are answered.
    #[track_caller]
    fn check(commands: &[&str], answered: &[&str]) {
        let mut mode = ReplyMode::default();
        let mut seen = Vec::new();
        for command in commands {
            match *command {
                "on" => mode.on(),
                "off" => mode.off(),
                "skip" => mode.skip(),
                "reset" => mode.reset(),
                _ => {}
            }
            mode = ReplyMode::from_bits(mode.bits());
            if mode.finish_command() {
                seen.push(*command);
            }
        }
        assert_eq!(seen, answered, "{commands:?}");
    }

    #[test]
    fn everything_is_answered_at_first() {
        check(&["a", "on", "b"], &["a", "on", "b"]);
    }

    #[test]
    fn off_mutes_until_on() {
        check(&["off", "a", "skip", "b", "on", "c"], &["on", "c"]);
    }

    #[test]
    fn skip_mutes_itself_and_one_command() {
        check(&["skip", "a", "b", "c"], &["b", "c"]);
        check(&["skip", "skip", "a", "b"], &["b"]);
    }

    #[test]
    fn on_and_off_win_over_a_skip() {
        check(&["skip", "on", "a"], &["on", "a"]);
        check(&["skip", "off", "a", "b"], &[]);
    }

    #[test]
    fn reset_ends_off_but_not_the_skip_it_stands_in() {
        check(&["off", "reset", "a"], &["reset", "a"]);
        check(&["skip", "reset", "a"], &["a"]);
    }
}
