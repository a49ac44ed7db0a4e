//! Translates key presses to commands of the live screen.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Quit,
    /// One step back; never quits.
    Back,
    Suspend,
    Redraw,
    Pause,
    Help,
    /// Move to the grouping this many places further.
    StepBy(isize),
    /// Switch to the grouping with this index.
    By(usize),
    StepSort(isize),
    Reverse,
    Move(isize),
    First,
    Last,
    Enter,
    /// Begin to type a filter text.
    Filter,
    Type(char),
    /// Delete the last character.
    Rub,
}

/// The command of a key; None if the key has none. While `typing`, characters go into the filter
/// text.
#[must_use]
pub fn command(key: KeyEvent, typing: bool) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Command::Quit),
            KeyCode::Char('z') => Some(Command::Suspend),
            KeyCode::Char('l') => Some(Command::Redraw),
            KeyCode::Char('h') => Some(Command::Rub),
            _ => None,
        };
    }
    match key.code {
        KeyCode::Esc => Some(Command::Back),
        KeyCode::Enter => Some(Command::Enter),
        KeyCode::Backspace => Some(Command::Rub),
        KeyCode::Char(c) if typing => Some(Command::Type(c)),
        KeyCode::Char(c) => letter(c),
        KeyCode::Tab => Some(Command::StepBy(1)),
        KeyCode::BackTab => Some(Command::StepBy(-1)),
        KeyCode::Up => Some(Command::Move(-1)),
        KeyCode::Down => Some(Command::Move(1)),
        KeyCode::PageUp => Some(Command::Move(-10)),
        KeyCode::PageDown => Some(Command::Move(10)),
        KeyCode::Home => Some(Command::First),
        KeyCode::End => Some(Command::Last),
        KeyCode::Right => Some(Command::StepSort(1)),
        KeyCode::Left => Some(Command::StepSort(-1)),
        KeyCode::F(1) => Some(Command::Help),
        _ => None,
    }
}

const fn letter(c: char) -> Option<Command> {
    Some(match c {
        'q' => Command::Quit,
        'p' | ' ' => Command::Pause,
        '?' | 'h' => Command::Help,
        's' | '>' => Command::StepSort(1),
        'S' | '<' => Command::StepSort(-1),
        'r' => Command::Reverse,
        '/' => Command::Filter,
        'j' => Command::Move(1),
        'k' => Command::Move(-1),
        'g' => Command::First,
        'G' => Command::Last,
        '1'..='7' => Command::By(c as usize - '1' as usize),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode, modifiers: KeyModifiers, typing: bool) -> Option<Command> {
        command(KeyEvent::new(code, modifiers), typing)
    }

    #[test]
    fn keys_mean_what_the_help_says() {
        let plain = |code| press(code, KeyModifiers::NONE, false);
        let letter = |c| plain(KeyCode::Char(c));
        assert_eq!(letter('q'), Some(Command::Quit));
        assert_eq!((letter('p'), letter(' ')), (Some(Command::Pause), Some(Command::Pause)));
        assert_eq!((letter('?'), letter('/')), (Some(Command::Help), Some(Command::Filter)));
        assert_eq!((letter('1'), letter('7')), (Some(Command::By(0)), Some(Command::By(6))));
        assert_eq!((letter('8'), letter('x')), (None, None));
        assert_eq!(plain(KeyCode::Esc), Some(Command::Back));
        assert_eq!(plain(KeyCode::Tab), Some(Command::StepBy(1)));
        let control = |c| press(KeyCode::Char(c), KeyModifiers::CONTROL, true);
        assert_eq!((control('c'), control('z')), (Some(Command::Quit), Some(Command::Suspend)));
        assert_eq!(press(KeyCode::Char('G'), KeyModifiers::SHIFT, false), Some(Command::Last));
    }

    #[test]
    fn letters_are_text_while_typing() {
        for c in ['q', 'p', '?', '1', ' ', 'é'] {
            assert_eq!(
                press(KeyCode::Char(c), KeyModifiers::NONE, true),
                Some(Command::Type(c)),
                "{c}"
            );
        }
        assert_eq!(press(KeyCode::Esc, KeyModifiers::NONE, true), Some(Command::Back));
    }

    #[test]
    fn a_released_key_means_nothing() {
        let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        key.kind = KeyEventKind::Release;
        assert_eq!(command(key, false), None);
    }
}
