//! Keyboard layouts: which key, with which others held, makes a character.
//!
//! Facts of PC keyboards as X and QEMU describe them (`xkeyboard-config`, QEMU's `pc-bios/keymaps`). Of the third level
//! only what is needed to type ASCII and currency is there. Must not know what is typed.

/// The keys that characters are on, in the order of the tables: QEMU's names.
const KEYS: [&str; 48] = [
    "grave_accent",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "0",
    "minus",
    "equal",
    "q",
    "w",
    "e",
    "r",
    "t",
    "y",
    "u",
    "i",
    "o",
    "p",
    "bracket_left",
    "bracket_right",
    "a",
    "s",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "semicolon",
    "apostrophe",
    "backslash",
    "less",
    "z",
    "x",
    "c",
    "v",
    "b",
    "n",
    "m",
    "comma",
    "dot",
    "slash",
];

/// One layout.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its name, as X has it.
    name: &'static str,
    /// Characters of [`KEYS`]; a space where there is none.
    plain: &'static str,
    /// With shift.
    shifted: &'static str,
    /// With the right alt key.
    third: &'static str,
    /// Of these only the accent is made, until a space follows.
    dead: &'static str,
}

/// How a character is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chord {
    /// The key.
    pub key: &'static str,
    /// With shift held.
    pub shift: bool,
    /// With the right alt key held.
    pub third: bool,
    /// A space has to follow.
    pub dead: bool,
}

impl Layout {
    /// The one of this name, which may be in upper case; `uk`, `sv`, `da` are known, too.
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = name.to_ascii_lowercase();
        let name = match name.as_str() {
            "uk" | "en-gb" => "gb",
            "en-us" | "en" => "us",
            "sv" => "se",
            "da" => "dk",
            "de-ch" => "ch",
            other => other,
        };
        LAYOUTS.iter().find(|layout| layout.name == name)
    }

    /// The names that there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        LAYOUTS.iter().map(|layout| layout.name)
    }

    /// That of most guests while they boot, whatever they have afterwards.
    pub fn us() -> &'static Self {
        &LAYOUTS[0]
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How `character` is made, the fewest keys held; `None`: it is not on this keyboard.
    pub fn chord(&self, character: char) -> Option<Chord> {
        if character == ' ' {
            return Some(Chord {
                key: "spc",
                shift: false,
                third: false,
                dead: false,
            });
        }
        let levels = [
            (self.plain, false, false),
            (self.shifted, true, false),
            (self.third, false, true),
        ];
        levels.into_iter().find_map(|(characters, shift, third)| {
            let at = characters.chars().position(|other| other == character)?;
            Some(Chord {
                key: KEYS.get(at)?,
                shift,
                third,
                dead: self.dead.contains(character),
            })
        })
    }
}

static LAYOUTS: [Layout; 14] = [
    Layout {
        name: "us",
        plain: r##"`1234567890-=qwertyuiop[]asdfghjkl;'\ zxcvbnm,./"##,
        shifted: r##"~!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:"| ZXCVBNM<>?"##,
        third: r##""##,
        dead: "",
    },
    Layout {
        name: "gb",
        plain: r##"`1234567890-=qwertyuiop[]asdfghjkl;'#\zxcvbnm,./"##,
        shifted: r##"¬!"£$%^&*()_+QWERTYUIOP{}ASDFGHJKL:@~|ZXCVBNM<>?"##,
        third: r##"|   €  {[]}\ @                       |"##,
        dead: "",
    },
    Layout {
        name: "de",
        plain: r##"^1234567890ß qwertzuiopü+asdfghjklöä#<yxcvbnm,.-"##,
        shifted: r##"°!"§$%&/()=?`QWERTZUIOPÜ*ASDFGHJKLÖÄ'>YXCVBNM;:_"##,
        third: r##"       {[]}\ @ €        ~            |"##,
        dead: "^`",
    },
    Layout {
        name: "de-nodeadkeys",
        plain: r##"^1234567890ß qwertzuiopü+asdfghjklöä#<yxcvbnm,.-"##,
        shifted: r##"°!"§$%&/()=?`QWERTZUIOPÜ*ASDFGHJKLÖÄ'>YXCVBNM;:_"##,
        third: r##"       {[]}\ @ €        ~          ^ |"##,
        dead: "",
    },
    Layout {
        name: "ch",
        plain: r##"§1234567890'^qwertzuiopü asdfghjklöä$<yxcvbnm,.-"##,
        shifted: r##"°+"*ç%&/()=?`QWERTZUIOPè!ASDFGHJKLéà£>YXCVBNM;:_"##,
        third: r##" |@#   | ]} ~@ €       []          {}\"##,
        dead: "^`~",
    },
    Layout {
        name: "fr",
        plain: r##"²&é"'(-è_çà)=azertyuiop^$qsdfghjklmù*<wxcvbn,;:!"##,
        shifted: r##" 1234567890°+AZERTYUIOP £QSDFGHJKLM%µ>WXCVBN?./§"##,
        third: r##"  ~#{[|`\^@]}  €         @         ^`|"##,
        dead: "",
    },
    Layout {
        name: "es",
        plain: r##"º1234567890'¡qwertyuiop`+asdfghjklñ ç<zxcvbnm,.-"##,
        shifted: r##"ª!"·$%&/()=?¿QWERTYUIOP^*ASDFGHJKLÑ Ç>ZXCVBNM;:_"##,
        third: r##"\|@#~  {[]}\ @ €       []         ~{}|"##,
        dead: "`^",
    },
    Layout {
        name: "it",
        plain: r##"\1234567890'ìqwertyuiopè+asdfghjklòàù<zxcvbnm,.-"##,
        shifted: r##"|!"£$%&/()=?^QWERTYUIOPé*ASDFGHJKLç°§>ZXCVBNM;:_"##,
        third: r##"       {[]}`~@ €       []         @#"##,
        dead: "",
    },
    Layout {
        name: "se",
        plain: r##"§1234567890+ qwertyuiopå asdfghjklöä'<zxcvbnm,.-"##,
        shifted: r##"½!"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLÖÄ*>ZXCVBNM;:_"##,
        third: r##"  @ $  {[]}\   €        ~            |"##,
        dead: "^~",
    },
    Layout {
        name: "dk",
        plain: r##"½1234567890+ qwertyuiopå asdfghjklæø'<zxcvbnm,.-"##,
        shifted: r##"§!"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLÆØ*>ZXCVBNM;:_"##,
        third: r##"  @ $  {[]} |@ €        ~          ^ \"##,
        dead: "`^~",
    },
    Layout {
        name: "no",
        plain: r##"|1234567890+\qwertyuiopå asdfghjkløæ'<zxcvbnm,.-"##,
        shifted: r##"§!"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLØÆ*>ZXCVBNM;:_"##,
        third: r##"  @ $  {[]}  @ €        ~          ^"##,
        dead: "`^~",
    },
    Layout {
        name: "fi",
        plain: r##"§1234567890+ qwertyuiopå asdfghjklöä'<zxcvbnm,.-"##,
        shifted: r##"½!"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLÖÄ*>ZXCVBNM;:_"##,
        third: r##"  @ $  {[]}\   €        ~            |"##,
        dead: "`^~",
    },
    Layout {
        name: "pt",
        plain: r##"\1234567890'«qwertyuiop+ asdfghjklçº~<zxcvbnm,.-"##,
        shifted: r##"|!"#$%&/()=?»QWERTYUIOP*`ASDFGHJKLÇª^>ZXCVBNM;:_"##,
        third: r##"  @    {[]}\ @ €        ~          ^`\"##,
        dead: "~`^",
    },
    Layout {
        name: "pl",
        plain: r##"`1234567890-=qwertyuiop[]asdfghjkl;'\ zxcvbnm,./"##,
        shifted: r##"~!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:"| ZXCVBNM<>?"##,
        third: r##"     €         ę ß   ó   ąś æ    ł    żźć  ńµ"##,
        dead: "",
    },
];

#[cfg(test)]
mod tests;
