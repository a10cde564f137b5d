// What is given to the models: paper, a picture or the camera's frame on it, and strokes on that.
// Strokes are kept as points, so that the large canvas that is drawn on and the small one that the
// models see are both drawn sharply, and the last stroke can be taken back.

export class Pad {
  constructor(shown, sight, { models: [{ input }], paper, ink }, changed) {
    const [, , height, width] = input, scale = Math.max(1, Math.round(768 / Math.max(height, width)));
    Object.assign(this, { shown, sight, paper, ink, changed, width, height });
    [shown.width, shown.height, sight.width, sight.height] = [width * scale, height * scale, width, height];
    this.base = null; // an image, or a video
    this.strokes = [];
    this.tool = { erases: false, width: 1 };
    this.draws = false;
    shown.addEventListener("pointerdown", (event) => this.begin(event));
    shown.addEventListener("pointermove", (event) => this.extend(event));
    for (const end of ["pointerup", "pointercancel"]) shown.addEventListener(end, () => { this.stroke = null; });
  }

  // Where it happened, in pixels of what the models see
  place(event) {
    const box = this.shown.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * this.width, (event.clientY - box.top) / box.height * this.height];
  }

  begin(event) {
    if (!this.draws || !event.isPrimary || event.button !== 0) return;
    this.shown.setPointerCapture(event.pointerId);
    this.stroke = { ...this.tool, points: [this.place(event)] };
    this.strokes.push(this.stroke);
    this.refresh();
  }

  extend(event) {
    if (!this.stroke || !event.isPrimary) return;
    const all = event.getCoalescedEvents?.() ?? [];
    this.stroke.points.push(...(all.length ? all : [event]).map((one) => this.place(one)));
    this.refresh();
  }

  // A new picture, video or nothing to draw on
  put(base, mirrored = false) {
    Object.assign(this, { base, mirrored, strokes: [], stroke: null });
    this.refresh();
  }

  undo() {
    if (this.strokes.pop()) this.refresh();
  }

  // At most once a frame of the screen, however fast the pen reports
  refresh() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.paint();
      this.changed();
    });
  }

  paint() {
    for (const canvas of [this.shown, this.sight]) {
      const context = canvas.getContext("2d", { willReadFrequently: canvas === this.sight });
      context.setTransform(canvas.width / this.width, 0, 0, canvas.height / this.height, 0, 0);
      context.imageSmoothingQuality = "high";
      context.fillStyle = this.paper;
      context.fillRect(0, 0, this.width, this.height);
      if (this.base) this.paintBase(context);
      context.lineCap = context.lineJoin = "round";
      for (const stroke of this.strokes) this.paintStroke(context, stroke);
    }
  }

  // As large as covers everything, cut at the longer side
  paintBase(context) {
    const width = this.base.videoWidth || this.base.width, height = this.base.videoHeight || this.base.height;
    const scale = Math.max(this.width / width, this.height / height);
    const [w, h] = [this.width / scale, this.height / scale];
    context.save();
    if (this.mirrored) context.transform(-1, 0, 0, 1, this.width, 0);
    context.drawImage(this.base, (width - w) / 2, (height - h) / 2, w, h, 0, 0, this.width, this.height);
    context.restore();
  }

  paintStroke(context, { erases, width, points: [first, ...others] }) {
    context.strokeStyle = erases ? this.paper : this.ink;
    context.lineWidth = (erases ? 3 : 1) * width * Math.min(this.width, this.height) / 128; // as wide in any size
    context.beginPath();
    context.moveTo(...first);
    for (const point of others.length ? others : [first]) context.lineTo(...point);
    context.stroke();
  }

  // RGBA bytes of what the models see
  pixels() {
    return this.sight.getContext("2d").getImageData(0, 0, this.width, this.height).data;
  }
}
