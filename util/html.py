"""A page of tables of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import quote

import dominate
from dominate import tags

from coronet_plugin.files import sweep, write_text


class HTML:
    """``<web_dir>/index.html``, written by ``save``; its images are in ``<web_dir>/images``."""

    def __init__(self, web_dir: str, title: str, refresh: int = 0) -> None:
        """``refresh``: seconds after which a browser loads the page again; 0 for never."""
        self.title = title
        self.web_dir = web_dir
        self.img_dir = os.path.join(web_dir, "images")
        os.makedirs(self.img_dir, exist_ok=True)
        for folder in (self.web_dir, self.img_dir):
            sweep(folder)
        self.doc = dominate.document(title=title)
        with self.doc.head:
            tags.meta(charset="utf-8")
            if refresh > 0:
                tags.meta(http_equiv="refresh", content=str(refresh))

    def get_image_dir(self) -> str:
        """Folder the page's images belong in."""
        return self.img_dir

    def add_header(self, text: str) -> None:
        """Add a heading."""
        with self.doc:
            tags.h3(text)

    def add_images(
        self, ims: Sequence[str], txts: Sequence[str], links: Sequence[str], width: int = 400
    ) -> None:
        """Add a row: files in the image folder, captions, files a click opens; ``width`` in pixels."""
        with self.doc, tags.table(border=1, style="table-layout: fixed"), tags.tr():
            for image, text, link in zip(ims, txts, links):
                with tags.td(style="word-wrap: break-word", halign="center", valign="top"), tags.p():
                    with tags.a(href=f"images/{quote(link)}"):
                        tags.img(style=f"width:{width}px", src=f"images/{quote(image)}")
                    tags.br()
                    tags.span(text)

    def save(self) -> None:
        """Write the page; a reader never sees half of one."""
        write_text(os.path.join(self.web_dir, "index.html"), self.doc.render(), flush=False)
