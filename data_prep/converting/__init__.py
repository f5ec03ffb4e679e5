"""Converters, one file each: bytes of HTML, PDF, DOCX, EPUB, markdown or text in, light markdown out."""
