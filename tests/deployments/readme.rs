//! The README's fenced blocks.

const README: &str = include_str!("../../README.md");

/// One block: its language and its text.
type Block = (&'static str, &'static str);

/// A section of the README, up to the next heading.
pub struct Section {
    heading: &'static str,
    blocks: Vec<Block>,
}

impl Section {
    /// The section with this heading.
    pub fn of(heading: &'static str) -> Self {
        let start = format!("\n{heading}\n");
        let (_, text) = README.split_once(&start).expect(heading);
        let mut blocks = Vec::new();
        let mut rest = text;
        while let Some((prose, fenced)) = rest.split_once("\n```") {
            if prose.contains("\n#") {
                break;
            }
            let (language, fenced) = fenced.split_once('\n').unwrap();
            let (block, after) = fenced.split_once("\n```\n").unwrap();
            blocks.push((language, block));
            rest = after;
        }
        Self { heading, blocks }
    }

    /// Its blocks in this language, in order.
    pub fn all(&self, language: &str) -> Vec<&'static str> {
        let wanted = self.blocks.iter().filter(|block| block.0 == language);
        wanted.map(|block| block.1).collect()
    }

    /// Its only block in this language.
    pub fn only(&self, language: &str) -> &'static str {
        match self.all(language)[..] {
            [block] => block,
            ref blocks => panic!("{}: {} blocks of {language}", self.heading, blocks.len()),
        }
    }
}
