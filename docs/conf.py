"""The pages as a site: `make docs` builds it into build/site."""

from pathlib import Path

from aclcmp import __version__

ROOT = Path(__file__).parents[1]

project = "aclcmp"
version = release = __version__
root_doc = "README"
extensions = ["myst_parser", "sphinx_external_toc"]
external_toc_path = "docs/site/toc.yml"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/*/*.md",
    "examples/*/*.md",
    "cluster_configs/*.md",
    "changelog.d/README.md",
]
exclude_patterns = ["build"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"aclcmp {__version__}"
html_extra_path = ["site/index.html"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}
highlight_language = "none"
