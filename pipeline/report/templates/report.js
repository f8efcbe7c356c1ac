for (const line of document.querySelectorAll(".line")) {
  const button = line.querySelector("button");
  button.hidden = false;
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(line.querySelector("code"));
    document.execCommand("copy");
    button.textContent = "Copied";
  });
}
for (const form of document.querySelectorAll(".find")) {
  const section = form.closest("section");
  const chosen = section.querySelector(".chosen");
  const results = section.querySelector(".results");
  const cards = [...chosen.querySelectorAll(".card")];
  const find = () => {
    const {sort, ...wanted} = Object.fromEntries([...new FormData(form)].filter(([, value]) => value));
    const active = sort !== undefined || Object.keys(wanted).length > 0;
    const found = cards.filter(card =>
      Object.entries(wanted).every(([name, value]) => card.dataset[name].split(" ").includes(value)));
    if (sort) {
      const [name, sign] = sort.split(" ");
      found.sort((one, other) => sign * (parseFloat(one.dataset[name]) - parseFloat(other.dataset[name])));
    }
    results.replaceChildren(...(active ? found.map(card => card.cloneNode(true)) : []));
    results.hidden = !active;
    chosen.hidden = active;
    form.querySelector("output").textContent = active ? `${found.length} of ${cards.length} with pictures` : "";
  };
  form.hidden = false;
  form.addEventListener("change", find);
  form.addEventListener("reset", () => setTimeout(find));
}
